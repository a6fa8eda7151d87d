# The testing kit: a static library with the whole engine on a simulated kernel, which programs link
# instead of ringws. It needs no liburing.
add_library(ringws_testing STATIC $<TARGET_OBJECTS:ringws_codec> ${ringws_testing_objects})
set_target_properties(ringws_testing PROPERTIES EXPORT_NAME testing LINKER_LANGUAGE C)
target_link_libraries(ringws_testing PUBLIC ringws_include
    PRIVATE "$<BUILD_INTERFACE:ringws_crypto;Threads::Threads>")
target_compile_features(ringws_testing INTERFACE c_std_99)
add_library(ringws::testing ALIAS ringws_testing)
# Only the machine code of the fat objects: test programs are many, and a link that optimises the whole
# library anew takes seconds.
if(RINGWS_LTO)
    add_custom_command(TARGET ringws_testing POST_BUILD VERBATIM
        COMMAND ${CMAKE_OBJCOPY} "--remove-section=.gnu.lto_*" $<TARGET_FILE:ringws_testing>)
endif()

# A target that gets both, also through what it links with, is an error when CMake generates: it names
# this property, whose values differ.
set(both ringws_and_ringws_testing_cannot_be_linked_together)
foreach(library ringws_shared ringws_static ringws_testing)
    if(library STREQUAL ringws_testing)
        set(value ringws_testing)
    else()
        set(value ringws)
        target_compile_definitions(${library} INTERFACE RINGWS_IS_LINKED) # testing.h looks at it
    endif()
    set_property(TARGET ${library} PROPERTY INTERFACE_${both} ${value})
    set_property(TARGET ${library} APPEND PROPERTY COMPATIBLE_INTERFACE_STRING ${both})
endforeach()
