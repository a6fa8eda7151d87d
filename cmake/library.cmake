# The shared and the static library, both from the object files of the folders. What they link with is
# named here again, because the folders' targets are not installed.
set(ringws_objects $<TARGET_OBJECTS:ringws_codec> ${ringws_engine_objects}
    ${ringws_seam_objects})
set(ringws_links PkgConfig::LIBURING ringws_crypto Threads::Threads)

add_library(ringws_shared SHARED ${ringws_objects})
add_library(ringws_static STATIC ${ringws_objects})
foreach(kind shared static)
    set_target_properties(ringws_${kind} PROPERTIES OUTPUT_NAME ringws LINKER_LANGUAGE C)
    target_link_libraries(ringws_${kind} PUBLIC ringws_include
        PRIVATE "$<BUILD_INTERFACE:${ringws_links}>")
    target_compile_features(ringws_${kind} INTERFACE c_std_99)
endforeach()
set(exports_map ${PROJECT_BINARY_DIR}/exports.map)
configure_file(${CMAKE_CURRENT_LIST_DIR}/exports.map.in ${exports_map} @ONLY)
set_target_properties(ringws_shared PROPERTIES
    EXPORT_NAME ringws
    VERSION ${PROJECT_VERSION} SOVERSION ${ringws_abi}
    LINK_DEPENDS ${exports_map})
# Symbols are hidden unless RWS_API marks them. The map keeps out what a static library brings in, and
# gives all of them a version: a program that was linked with one does not start with another.
target_link_options(ringws_shared PRIVATE
    -Wl,--version-script=${exports_map} -Wl,-z,defs,-z,relro,-z,now)
if(RINGWS_SANITIZE)
    # Sanitizer runtimes stay undefined in a shared library under clang.
    target_link_options(ringws_shared PRIVATE -Wl,-z,undefs)
endif()
add_library(ringws::ringws ALIAS ringws_shared)
add_library(ringws::ringws_static ALIAS ringws_static)
