#include "tools/bench/gpu_kernel_times.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include <cupti.h>
#include <cxxabi.h>

#include <cuda_runtime_api.h>

namespace tessera::bench {
namespace {

constexpr size_t kBufferBytes = size_t{4} << 20;
constexpr size_t kAlignment = 8;

// CUPTI's callbacks carry no argument of the caller's.
std::mutex mutex;
std::map<std::string, KernelTime> totals;
uint32_t recorded_device = 0;

void check(CUptiResult result, const char* call) {
  if (result != CUPTI_SUCCESS) {
    const char* text = "unknown error";
    cuptiGetResultString(result, &text);
    std::fprintf(stderr, "%s: %s\n", call, text);
    std::exit(1);
  }
}

/// "space::kernel" of a symbol: no template's or function's arguments, no return type.
std::string short_name(const char* symbol) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(symbol, nullptr, nullptr, &status), &std::free);
  std::string name = status == 0 ? text.get() : symbol;
  if (const size_t begin = name.find("(anonymous namespace)::"); begin != std::string::npos) {
    name = name.substr(begin + std::string("(anonymous namespace)::").size());
  }
  name = name.substr(0, name.find_first_of("<("));
  return name.substr(name.find_last_of(' ') + 1);
}

void add(const CUpti_Activity* record) {
  if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
    return;
  }
  const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel10*>(record);
  if (kernel->deviceId != recorded_device) {
    return;
  }
  KernelTime& total = totals[kernel->name];
  ++total.count;
  total.seconds += static_cast<double>(kernel->end - kernel->start) * 1e-9;
}

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* max_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(kAlignment, kBufferBytes));
  *size = kBufferBytes;
  *max_records = 0;
}

void CUPTIAPI take_buffer(
    CUcontext /*context*/, uint32_t /*stream*/, uint8_t* buffer, size_t /*size*/, size_t valid) {
  const std::lock_guard lock(mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    add(record);
  }
  std::free(buffer);
}

}  // namespace

GpuKernelTimes::GpuKernelTimes(int device) {
  const std::lock_guard lock(mutex);
  totals.clear();
  recorded_device = static_cast<uint32_t>(device);
  check(cuptiActivityRegisterCallbacks(give_buffer, take_buffer), "cuptiActivityRegisterCallbacks");
  check(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL), "cuptiActivityEnable");
}

GpuKernelTimes::~GpuKernelTimes() {
  cuptiActivityDisable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
}

std::vector<KernelTime> GpuKernelTimes::finish_blocking() {
  check(cuptiActivityFlushAll(0), "cuptiActivityFlushAll");
  const std::lock_guard lock(mutex);
  std::map<std::string, KernelTime> by_name;  // instances of one template together
  for (const auto& [symbol, time] : totals) {
    KernelTime& sum = by_name[short_name(symbol.c_str())];
    sum.count += time.count;
    sum.seconds += time.seconds;
  }
  std::vector<KernelTime> result;
  for (auto& [name, time] : by_name) {
    time.name = name;
    result.push_back(std::move(time));
  }
  std::sort(result.begin(), result.end(), [](const KernelTime& a, const KernelTime& b) {
    return a.seconds > b.seconds;
  });
  return result;
}

std::string kernel_class(const std::string& name) {
  // The first that is part of the name counts.
  constexpr std::array<std::pair<const char*, const char*>, 16> kClasses = {
      {{"nccl", "collectives"},
       {"peer_", "collectives"},
       {"combine_rows", "other"},  // of experts
       {"decode", "attention"},
       {"prefill", "attention"},
       {"attend", "attention"},
       {"combine", "attention"},
       {"merge", "attention"},
       {"sample", "sampling"},
       {"choose_tokens", "sampling"},
       {"multiply", "products"},
       {"gemm", "products"},
       {"nvjet", "products"},
       {"cutlass", "products"},
       {"dot_kernel", "products"},
       {"splitK", "products"}}};
  const auto* found = std::find_if(kClasses.begin(), kClasses.end(), [&](const auto& entry) {
    return name.find(entry.first) != std::string::npos;
  });
  return found == kClasses.end() ? "other" : found->second;
}

}  // namespace tessera::bench
