# Helpers that keep every folder's CMakeLists.txt to a few lines.

find_package(Threads REQUIRED)
find_package(GTest REQUIRED)

add_library(ws_options INTERFACE)
target_compile_options(ws_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wno-unused-parameter
                                            -Werror=return-type -fno-omit-frame-pointer)
target_include_directories(ws_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
if(WAYSTATION_SANITIZE)
  target_compile_options(ws_options INTERFACE -fsanitize=${WAYSTATION_SANITIZE})
  target_link_options(ws_options INTERFACE -fsanitize=${WAYSTATION_SANITIZE})
endif()

# ws_library(NAME SOURCES a.cc b.cc DEPS other libs)
function(ws_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC ws_options Threads::Threads ${ARG_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE ws_options Threads::Threads ${ARG_DEPS})
  endif()
endfunction()

# ws_test(NAME SOURCES a_test.cc DEPS libs [TIMEOUT seconds]): a GoogleTest program known to ctest.
function(ws_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ws_options ${ARG_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS unit)
endfunction()
