# gpu_check: needs LibTorch and the core, no Catch2, no Google Benchmark. Included by tests/, and for tools/gpu_check.sh
# alone.

set(_gpu "${CMAKE_CURRENT_LIST_DIR}")
add_library(gpu_checks OBJECT "${_gpu}/gpu_check.cpp" "${_gpu}/checks.cpp" "${_gpu}/measurements.cpp"
            "${_gpu}/target.cpp" "${_gpu}/cuda_calls.cpp")
target_include_directories(gpu_checks PRIVATE "${_gpu}/..")  # "benchmarks/resnet18.h"
target_link_libraries(gpu_checks PRIVATE beholder::core beholder_build)
if(COMMAND precompile_torch)  # by tests/; the header is a program's, position independent as programs are
  set_target_properties(gpu_checks PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(gpu_checks PRIVATE -fPIE)
  precompile_torch(gpu_checks)
else()
  target_precompile_headers(gpu_checks PRIVATE <torch/torch.h>)
endif()

# Its name, and the file that says whether the test-only device is in it.
function(gpu_check_program name file)
  add_executable(${name} $<TARGET_OBJECTS:gpu_checks> "${file}")
  target_link_libraries(${name} PRIVATE beholder::core beholder_build ${CMAKE_DL_LIBS})
  set_target_properties(${name} PROPERTIES ENABLE_EXPORTS ON)  # cuda_calls.cpp is found by LibTorch
endfunction()
gpu_check_program(gpu_check "${_gpu}/no_test_device.cpp")

add_test(NAME gpu COMMAND gpu_check --quick)
set_tests_properties(gpu PROPERTIES SKIP_RETURN_CODE 77 ENVIRONMENT BEHOLDER_TEST_DEVICE=cuda)
add_test(NAME gpu_check_on_the_cpu COMMAND gpu_check --quick)
set_tests_properties(gpu_check_on_the_cpu PROPERTIES ENVIRONMENT BEHOLDER_TEST_DEVICE=cpu)

if(TARGET fake_device)
  gpu_check_program(gpu_check_on_test_device "${_gpu}/test_device.cpp")
  target_link_libraries(gpu_check_on_test_device PRIVATE fake_device)
  add_test(NAME gpu_check_on_the_test_device COMMAND gpu_check_on_test_device --quick)
  set_tests_properties(gpu_check_on_the_test_device PROPERTIES ENVIRONMENT BEHOLDER_TEST_DEVICE=test)
endif()
