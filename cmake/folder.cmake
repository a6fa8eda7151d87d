# Each folder is a target of its own, and its headers are included as "<folder>/<file>.h". The folder
# is reachable only through a link under the build tree that the target carries, so an include in a
# direction that the target does not link against finds no file (tests/selftest/include-direction proves it).
# A folder in a folder ("engine/base") is the target ringws_engine_base.
function(ringws_folder folder)
    string(REPLACE "/" "_" name ${folder})
    cmake_path(GET folder PARENT_PATH parent)
    set(root ${PROJECT_BINARY_DIR}/include-${name})
    file(MAKE_DIRECTORY ${root}/${parent})
    file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${root}/${folder} SYMBOLIC)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    add_library(ringws_${name} OBJECT ${sources})
    target_include_directories(ringws_${name} PUBLIC ${root})
    target_link_libraries(ringws_${name} PUBLIC ringws_include)
endfunction()
