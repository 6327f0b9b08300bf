#include "engine/parallel/nccl_handles.h"

#include <chrono>
#include <condition_variable>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "engine/base/text.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kErrorPoll{100};
constexpr std::chrono::milliseconds kInsidePoll{1};
/// For calls that do not come back: they are aborted under way then.
constexpr std::chrono::seconds kInsideLimit{5};

}  // namespace

NcclHandles::~NcclHandles() {
  watch_ = {};  // joins
  for (std::thread& ender : enders_) {
    ender.join();
  }
  for (ncclComm_t handle : handles_) {
    if (enders_.empty()) {
      library_->CommDestroy(handle);
    }
  }
}

Result<std::vector<ncclComm_t>> NcclHandles::add_group(const std::vector<int>& devices) {
  std::vector<ncclComm_t> handles(devices.size(), nullptr);
  if (devices.size() > 1) {
    const ncclResult_t result =
        library_->CommInitAll(handles.data(), static_cast<int>(devices.size()), devices.data());
    if (result != ncclSuccess) {
      return unavailable(str_cat("NCCL ",
                                 library_->version,
                                 " cannot connect ",
                                 devices.size(),
                                 " GPUs: ",
                                 library_->GetErrorString(result)));
    }
    handles_.insert(handles_.end(), handles.begin(), handles.end());
  }
  return handles;
}

void NcclHandles::watch() {
  if (!handles_.empty()) {
    watch_ = std::jthread([this](const std::stop_token& stop) { poll(stop); });
  }
}

void NcclHandles::abort(const std::string& reason) noexcept {
  const std::lock_guard lock(mutex_);
  if (is_aborted_.load()) {
    return;
  }
  reason_ = reason;
  is_aborted_.store(true);
  if (abort_small_sum_) {
    abort_small_sum_();
  }
  end_all();
}

void NcclHandles::end_all() {
  const Clock::time_point limit = Clock::now() + kInsideLimit;
  while (num_inside_.load() > 0 && Clock::now() < limit) {
    std::this_thread::sleep_for(kInsidePoll);
  }
  // Each raises its flag for the GPU at once, but the last of a group then waits for graphs.
  for (ncclComm_t handle : handles_) {
    enders_.emplace_back([this, handle] { library_->CommAbort(handle); });
  }
}

void NcclHandles::throw_if_aborted() const {
  if (is_aborted_.load()) {
    throw DeviceError(reason_);
  }
}

void NcclHandles::throw_unless_taken(ncclResult_t result, const char* what) const {
  if (result != ncclSuccess) {
    throw DeviceError(str_cat("NCCL ", what, ": ", library_->GetErrorString(result)));
  }
}

void NcclHandles::poll(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any wakeup;
  std::unique_lock lock(mutex);
  while (!wakeup.wait_for(lock, stop, kErrorPoll, [&] { return stop.stop_requested(); })) {
    if (const std::string error = find_error(); !error.empty()) {
      log_error("nccl_failed", "error", error);
      abort(error);
      return;
    }
  }
}

std::string NcclHandles::find_error() {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < handles_.size() && !is_aborted_.load(); ++i) {
    ncclResult_t error = ncclSuccess;
    const ncclResult_t result = library_->CommGetAsyncError(handles_[i], &error);
    error = result != ncclSuccess ? result : error;
    if (error != ncclSuccess && error != ncclInProgress) {
      return str_cat("NCCL: ", library_->GetErrorString(error));
    }
  }
  return {};
}

}  // namespace tessera
