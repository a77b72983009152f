# llama.cpp from the cache, as one target: llama_engine_deps.
#
# tools/build_llama.sh builds it once per machine, outside the tree; its prefix holds static libraries
# and headers. Only src/engine/llama links this.

# Another source or other options are another prefix.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tools/pins.json
                                       ${PROJECT_SOURCE_DIR}/tools/build_llama.sh)

if(NOT WAYSTATION_LLAMA_PREFIX)
  execute_process(
    COMMAND ${PROJECT_SOURCE_DIR}/tools/build_llama.sh --print-prefix
    OUTPUT_VARIABLE llama_prefix
    OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE llama_result)
  if(NOT llama_result EQUAL 0)
    message(FATAL_ERROR "tools/build_llama.sh --print-prefix failed: run 'make setup'")
  endif()
else()
  set(llama_prefix ${WAYSTATION_LLAMA_PREFIX})
endif()
if(NOT EXISTS ${llama_prefix}/stamp)
  message(FATAL_ERROR "llama.cpp is not built for this machine (${llama_prefix}): run 'make setup'")
endif()

add_library(llama_engine_deps INTERFACE)
# SYSTEM: its warnings are not ours.
target_include_directories(
  llama_engine_deps SYSTEM INTERFACE ${llama_prefix}/include ${llama_prefix}/include/common
                                     ${llama_prefix}/include/vendor)
target_link_libraries(
  llama_engine_deps
  INTERFACE ${llama_prefix}/lib/libllama-common.a ${llama_prefix}/lib/libllama-common-base.a
            ${llama_prefix}/lib/libllama.a ${llama_prefix}/lib/libggml.a
            ${llama_prefix}/lib/libggml-cpu.a ${llama_prefix}/lib/libggml-base.a
            ${llama_prefix}/lib/libcpp-httplib.a Threads::Threads ${CMAKE_DL_LIBS})
