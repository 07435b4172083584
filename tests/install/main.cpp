#include <ATen/ATen.h>
#include <beholder/beholder.h>
#include <beholder/callbacks/recorder.h>

int main() {
  beholder::Beholder beholder("logdir");
  beholder.add(std::make_shared<beholder::Recorder>());
  beholder.update(beholder::Arrays{{"numbers", at::arange(100.0).reshape({10, 10})}});
  return 0;
}
