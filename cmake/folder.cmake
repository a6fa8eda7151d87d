# Each folder is a target of its own, and its headers are included as "<folder>/<file>.h". The folder
# is reachable only through a link under the build tree that the target carries, so an include in a
# direction that the target does not link against finds no file.
function(ringws_folder folder)
    set(root ${PROJECT_BINARY_DIR}/include-${folder})
    file(MAKE_DIRECTORY ${root})
    file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${root}/${folder} SYMBOLIC)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    add_library(ringws_${folder} OBJECT ${sources})
    target_include_directories(ringws_${folder} PUBLIC ${root})
    target_link_libraries(ringws_${folder} PUBLIC ringws_include)
endfunction()
