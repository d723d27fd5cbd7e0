include(CTest)

# Files are copied under their relative names into the build tree's folder, and that folder is installed:
# by itself for a module, under its name for one WITH_SUBDIR.
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords given to slicerMacroBuildScriptedModule(): \"${MODULE_UNPARSED_ARGUMENTS}\"")
  endif()
  if(NOT DEFINED MODULE_NAME)
    message(FATAL_ERROR "NAME is mandatory")
  endif()

  set(_destination "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
  set(_installed "${_destination}/")
  if(MODULE_WITH_SUBDIR)
    get_filename_component(_subdirectory "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
    string(APPEND _destination "/${_subdirectory}")
    set(_installed "${_destination}")
  endif()

  set(_copies)
  foreach(_file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    set(_source "${CMAKE_CURRENT_SOURCE_DIR}/${_file}")
    if(NOT EXISTS "${_source}")
      message(FATAL_ERROR "slicerMacroBuildScriptedModule given nonexistent file or directory '${_file}'")
    endif()
    add_custom_command(
      OUTPUT "${_destination}/${_file}"
      COMMAND ${CMAKE_COMMAND} -E copy "${_source}" "${_destination}/${_file}"
      DEPENDS "${_source}"
      )
    list(APPEND _copies "${_destination}/${_file}")
  endforeach()
  add_custom_target(Copy${MODULE_NAME}PythonFiles ALL DEPENDS ${_copies})
  install(DIRECTORY "${_installed}"
    DESTINATION "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}" COMPONENT Runtime USE_SOURCE_PERMISSIONS)
endmacro()

# Slicer looks for the script by its name in its folder, which must be an absolute path unless it is this one.
macro(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
  get_filename_component(_name "${TEST_SCRIPT}" NAME_WE)
  get_filename_component(_folder "${TEST_SCRIPT}" PATH)
  if("${_folder}" STREQUAL "")
    set(_folder "${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  if(NOT EXISTS "${_folder}/${_name}.py" OR NOT IS_ABSOLUTE "${_folder}")
    message(FATAL_ERROR "slicer_add_python_unittest: '${_folder}/${_name}.py' is not there or not absolute")
  endif()
  add_test(NAME py_${TEST_TESTNAME_PREFIX}${_name} COMMAND Slicer --testing "${_folder}" "${_name}")
endmacro()
