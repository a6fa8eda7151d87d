# What ringws is built on. Each dependency is named here once: as a target for this build, and as a
# pkg-config module that the installed pkg-config file and CMake package ask for.
find_package(PkgConfig REQUIRED)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# ringws_need(PREFIX MODULES PACKAGE WHY): find it, or say in one sentence what to install.
function(ringws_need prefix modules package why)
    pkg_check_modules(${prefix} QUIET IMPORTED_TARGET GLOBAL ${modules})
    if(NOT ${prefix}_FOUND)
        message(FATAL_ERROR "${modules} was not found: ${why}. Install it (Debian and Ubuntu: ${package}).")
    endif()
endfunction()

ringws_need(LIBURING liburing>=2.3 liburing-dev "the engine stands on it")

# SHA-1 and Base64 for the handshake.
add_library(ringws_crypto INTERFACE)
if(RINGWS_TLS)
    ringws_need(WOLFSSL wolfssl libwolfssl-dev "-DRINGWS_TLS=OFF builds without it")
    target_link_libraries(ringws_crypto INTERFACE PkgConfig::WOLFSSL)
    set(RINGWS_TESTING_PC_REQUIRES "wolfssl")
else()
    ringws_need(LIBMD libmd libmd-dev "without TLS the handshake takes SHA-1 from it")
    target_link_libraries(ringws_crypto INTERFACE PkgConfig::LIBMD)
    set(RINGWS_TESTING_PC_REQUIRES "libmd")
endif()
# The testing kit has the engine without io_uring.
set(RINGWS_PC_REQUIRES "liburing >= 2.3, ${RINGWS_TESTING_PC_REQUIRES}")
set(RINGWS_PKG_MODULES "liburing>=2.3 ${RINGWS_TESTING_PC_REQUIRES}")

# Coverage for libFuzzer in everything that a target calls.
if(RINGWS_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
endif()
