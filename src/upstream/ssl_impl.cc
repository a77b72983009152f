// The one translation unit that compiles Asio's TLS; all others see declarations only.
#include <boost/asio/ssl/impl/src.hpp>
