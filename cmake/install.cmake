# cmake --install: headers, both libraries, the testing kit, the pkg-config files and the CMake package.
include(CMakePackageConfigHelpers)

install(DIRECTORY include/ringws DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(TARGETS ringws_shared ringws_static ringws_testing ringws_include EXPORT ringws
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/ringws)
install(EXPORT ringws NAMESPACE ringws:: FILE ringws-targets.cmake DESTINATION ${package_dir})
configure_package_config_file(cmake/ringws-config.cmake.in ringws-config.cmake
    INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(ringws-config-version.cmake COMPATIBILITY ${ringws_compatibility})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/ringws-config.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/ringws-config-version.cmake DESTINATION ${package_dir})

# The prefix is found from where the file lies, so that an installed tree can be moved.
file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" pc_prefix ${pc_prefix})
foreach(module ringws ringws-testing)
    configure_file(cmake/${module}.pc.in ${module}.pc @ONLY)
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${module}.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
