# Link-time optimisation. The objects are fat (machine code beside the intermediate code), so that the
# installed static library can be linked by another compiler. Only gcc can make such objects in
# Debian 12; with clang the option defaults to off.
set(lto_default OFF)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT RINGWS_SANITIZE)
    set(lto_default ON)
endif()
option(RINGWS_LTO "Link-time optimisation (gcc)" ${lto_default})
if(RINGWS_LTO)
    if(NOT CMAKE_C_COMPILER_ID STREQUAL "GNU")
        message(FATAL_ERROR "RINGWS_LTO needs gcc: the installed static library has to stay usable")
    endif()
    add_compile_options(-flto=auto -ffat-lto-objects)
    add_link_options(-flto=auto)
    set(CMAKE_AR ${CMAKE_C_COMPILER_AR})
    set(CMAKE_RANLIB ${CMAKE_C_COMPILER_RANLIB})
endif()
