// NCCL, loaded when the process starts to use GPUs, so that the binary runs on machines that have
// none and finds the library where the system, or --nccl-library, has it. Only files nccl_* include
// this.
#pragma once

#include <memory>
#include <string>

#include <nccl.h>

#include "engine/base/result.h"

namespace tessera {

/// The functions that are called, under NCCL's own names less the prefix.
struct NcclLibrary {
  decltype(&ncclGetVersion) GetVersion = nullptr;
  decltype(&ncclGetErrorString) GetErrorString = nullptr;
  decltype(&ncclCommInitAll) CommInitAll = nullptr;
  decltype(&ncclCommDestroy) CommDestroy = nullptr;
  decltype(&ncclCommAbort) CommAbort = nullptr;
  decltype(&ncclCommGetAsyncError) CommGetAsyncError = nullptr;
  decltype(&ncclAllReduce) AllReduce = nullptr;
  decltype(&ncclReduceScatter) ReduceScatter = nullptr;
  decltype(&ncclAllGather) AllGather = nullptr;
  decltype(&ncclSend) Send = nullptr;
  decltype(&ncclRecv) Recv = nullptr;
  decltype(&ncclGroupStart) GroupStart = nullptr;
  decltype(&ncclGroupEnd) GroupEnd = nullptr;
  std::string version;  ///< "2.28.9"
  std::string path;     ///< as it was found

  /// `path` or, if empty, libnccl.so.2 as the system finds it. It stays loaded until the process
  /// ends. Errors: NOT_FOUND, FAILED_PRECONDITION (older than kOldestVersion, or a function is
  /// missing), naming the library and the loader's reason.
  [[nodiscard]] static Result<std::shared_ptr<const NcclLibrary>> load(const std::string& path);

  static constexpr int kOldestVersion = 21800;  ///< 2.18, as ncclGetVersion counts
};

}  // namespace tessera
