# Which tests belong together, and how they run. Included last: it looks at all tests of this folder.

get_property(_tests DIRECTORY PROPERTY TESTS)
get_property(_fake_device_tests DIRECTORY fake_device PROPERTY TESTS)
get_property(_fuzz_tests DIRECTORY fuzz PROPERTY TESTS)

# Under a sanitizer.
set(_environment)
if(BEHOLDER_SANITIZE STREQUAL "address")
  set(_environment "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/asan.supp:print_suppressions=0"
                   "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1")
elseif(BEHOLDER_SANITIZE STREQUAL "thread")
  set(_environment "TSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/tsan.supp:halt_on_error=1" "OMP_NUM_THREADS=1")
endif()
if(_environment)
  foreach(_test IN LISTS _tests)
    set_property(TEST ${_test} APPEND PROPERTY ENVIRONMENT ${_environment})
  endforeach()
endif()

# tsan_tests: those that the thread sanitizer can judge, of threads and without LibTorch's OpenMP, whose barriers it does
# not know. quick_tests: all but those that take minutes.
add_custom_target(tsan_tests)
add_custom_target(quick_tests)
foreach(_test IN LISTS _tests _fake_device_tests _fuzz_tests)
  set(_labels "")
  if(_test IN_LIST _tests)
    get_test_property(${_test} LABELS _labels)
  endif()
  foreach(_program IN ITEMS test_${_test} ${_test})
    if(NOT TARGET ${_program})
      continue()
    endif()
    if("tsan" IN_LIST _labels)
      add_dependencies(tsan_tests ${_program})
    endif()
    if(NOT "long" IN_LIST _labels AND NOT "all" IN_LIST _labels)
      add_dependencies(quick_tests ${_program})
    endif()
  endforeach()
endforeach()
# What tests run that are no programs of one name, and what the test of installing installs.
foreach(_program IN ITEMS test_headers gpu_check gpu_check_on_test_device live_run watch_run beholder_core
                          beholder_callbacks beholder)
  if(TARGET ${_program})
    add_dependencies(quick_tests ${_program})
  endif()
endforeach()

# Two tests at a time on two cores; but what measures time, or draws and looks, has the machine for itself.
foreach(_test IN ITEMS beholder dispatcher live_server live_server_stall live_load budget page_short page_all window_short
                       window_all window_process faults faults_sanitized faults_repeated faults_soak gpu trainings
                       gpu_check_on_the_cpu gpu_check_on_the_test_device)
  if(TEST ${_test})
    set_tests_properties(${_test} PROPERTIES RUN_SERIAL ON)
  endif()
endforeach()
