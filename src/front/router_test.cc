#include "front/router.h"

#include <gtest/gtest.h>

#include "front/options.h"

namespace waystation::front {
namespace {

using boost::beast::http::verb;

TEST(Router, MatchesLiteralsParametersAndRests) {
  const Router router({{verb::get, "/a", nullptr},
                       {verb::get, "/a/{id}", nullptr},
                       {verb::post, "/a/{id}/cancel", nullptr},
                       {verb::get, "/m/{id...}", nullptr}});
  const auto pattern = [&](verb method, std::string_view path) {
    const Match match = router.match(method, path);
    return match.route == nullptr ? "-" + match.allow : match.route->pattern;
  };
  EXPECT_EQ(pattern(verb::get, "/a"), "/a");
  EXPECT_EQ(pattern(verb::head, "/a"), "/a");
  EXPECT_EQ(pattern(verb::get, "/a/5"), "/a/{id}");
  EXPECT_EQ(pattern(verb::post, "/a/5/cancel"), "/a/{id}/cancel");
  EXPECT_EQ(pattern(verb::get, "/a/5/cancel"), "-POST");
  EXPECT_EQ(pattern(verb::put, "/a"), "-GET, HEAD");
  for (const char* nothing :
       {"", "/", "/b", "/a/", "/a//cancel", "/a/5/cancel/x", "/m", "/m/", "a/b"}) {
    EXPECT_EQ(pattern(verb::get, nothing), "-") << nothing;
  }
  EXPECT_EQ(router.match(verb::get, "/m/org/na%20me").params,
            std::vector<std::string>{"org/na me"});
  EXPECT_EQ(router.match(verb::post, "/a/x%2Fy/cancel").params, std::vector<std::string>{"x/y"});
}

TEST(PercentDecode, LeavesMalformedEscapes) {
  EXPECT_EQ(percent_decode("a%2fb%2F"), "a/b/");
  EXPECT_EQ(percent_decode("%"), "%");
  EXPECT_EQ(percent_decode("%4"), "%4");
  EXPECT_EQ(percent_decode("%zz%41"), "%zzA");
}

TEST(Query, ValuesAreDecoded) {
  Request request;
  request.query = "a=1&b=x%20y&c&starting_after=7";
  EXPECT_EQ(request.query_value("a"), "1");
  EXPECT_EQ(request.query_value("b"), "x y");
  EXPECT_EQ(request.query_value("c"), "");
  EXPECT_EQ(request.query_value("starting_after"), "7");
  EXPECT_EQ(request.query_value("d"), std::nullopt);
}

TEST(Listen, Parses) {
  const auto check = [](std::string_view text, std::string host, int port, bool loopback) {
    const auto listen = parse_listen(text);
    ASSERT_TRUE(listen) << listen.error().message;
    EXPECT_EQ(listen->host, host);
    EXPECT_EQ(listen->port, port);
    EXPECT_EQ(listen->is_loopback(), loopback);
  };
  check("127.0.0.1:8080", "127.0.0.1", 8080, true);
  check("[::1]:0", "::1", 0, true);
  check(":9", "127.0.0.1", 9, true);
  check("localhost:9", "127.0.0.1", 9, true);
  check("0.0.0.0:65535", "0.0.0.0", 65535, false);
  check("[::]:80", "::", 80, false);
  for (const char* bad : {"", "8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
                          "127.0.0.1:-1", "::1:80", "example.com:80", "[::1]", "1.2.3:80"}) {
    const auto listen = parse_listen(bad);
    ASSERT_FALSE(listen) << bad;
    EXPECT_EQ(listen.error().param, "listen");
  }
}

}  // namespace
}  // namespace waystation::front
