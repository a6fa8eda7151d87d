# Each folder is a target of its own, and its headers are included as "<folder>/<file>.h". The folder
# is reachable only through a link under the build tree that the target carries, so an include in a
# direction that the target does not link against finds no file (tests/selftest/include-direction proves it).
function(ringws_folder folder)
    set(root ${PROJECT_BINARY_DIR}/include-${folder})
    file(MAKE_DIRECTORY ${root})
    file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${root}/${folder} SYMBOLIC)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    if(NOT sources)
        # A folder that has only headers so far still is a target that others link with.
        set(sources ${PROJECT_BINARY_DIR}/empty.c)
        file(CONFIGURE OUTPUT ${sources} CONTENT "typedef int ringws_no_source;\n")
    endif()
    add_library(ringws_${folder} OBJECT ${sources})
    target_include_directories(ringws_${folder} PUBLIC ${root})
    target_link_libraries(ringws_${folder} PUBLIC ringws_include)
endfunction()
