# The parts beside the library, each with what it needs. ON insists: what is missing is an error. AUTO
# leaves the part out and says so. Inside another project all of them are off.
set(default OFF)
if(PROJECT_IS_TOP_LEVEL)
    set(default AUTO)
endif()
set(RINGWS_TESTS ${default} CACHE STRING "Build the tests, of the tools too: ON, OFF or AUTO")
set(RINGWS_TOOLS ${default} CACHE STRING "Build the ringws command: ON, OFF or AUTO")
set_property(CACHE RINGWS_TESTS RINGWS_TOOLS PROPERTY STRINGS ON OFF AUTO)

# ringws_part(OPTION WHAT PREFIX MODULES PACKAGE WHY): makes of AUTO what can be had.
function(ringws_part option what prefix modules package why)
    if(${option} STREQUAL "AUTO")
        pkg_check_modules(${prefix} QUIET IMPORTED_TARGET GLOBAL ${modules})
        if(NOT ${prefix}_FOUND)
            message(STATUS "${what} left out: ${modules} was not found (Debian and Ubuntu: ${package})")
            set(${option} OFF PARENT_SCOPE)
            return()
        endif()
        set(${option} ON PARENT_SCOPE)
    elseif(${option})
        ringws_need(${prefix} ${modules} ${package} ${why})
    endif()
endfunction()

set(tests_asked ${RINGWS_TESTS})
# Debian's Criterion does not run under ThreadSanitizer, so nothing there needs it.
if(RINGWS_SANITIZE MATCHES "thread")
    if(RINGWS_TESTS STREQUAL "AUTO")
        set(RINGWS_TESTS ON)
    endif()
else()
    ringws_part(RINGWS_TESTS "The tests are" CRITERION criterion libcriterion-dev
        "the unit tests are written for it, -DRINGWS_TESTS=OFF builds without them")
endif()
# All the tests and the benchmarks are asked for: then the command has to be there as well.
if(RINGWS_TOOLS STREQUAL "AUTO" AND (RINGWS_BENCH OR (tests_asked AND NOT tests_asked STREQUAL "AUTO")))
    set(RINGWS_TOOLS ON)
endif()
ringws_part(RINGWS_TOOLS "The ringws command and its tests are" CJSON libcjson libcjson-dev
    "the command prints JSON with it, -DRINGWS_TOOLS=OFF builds without the command")
if(RINGWS_BENCH AND NOT RINGWS_TOOLS)
    message(FATAL_ERROR "RINGWS_BENCH needs RINGWS_TOOLS: the benchmarks share code with the command")
endif()
