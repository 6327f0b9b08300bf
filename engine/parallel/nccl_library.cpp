#include "engine/parallel/nccl_library.h"

#include <dlfcn.h>

#include "engine/base/text.h"

namespace tessera {
namespace {

constexpr const char* kDefaultName = "libnccl.so.2";

std::string loader_error() {
  const char* text = dlerror();
  return text != nullptr ? text : "no reason given";
}

std::string version_text(int version) {
  return str_cat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

}  // namespace

Result<std::shared_ptr<const NcclLibrary>> NcclLibrary::load(const std::string& path) {
  auto library = std::make_shared<NcclLibrary>();
  library->path = path.empty() ? kDefaultName : path;
  void* handle = dlopen(library->path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return not_found(str_cat("NCCL cannot be loaded: ",
                             loader_error(),
                             "; --nccl-library names it where the system does not find it"));
  }
  std::string missing;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr) {
      missing += str_cat(missing.empty() ? "" : ", ", name);
    }
  };
  find(library->GetVersion, "ncclGetVersion");
  find(library->GetErrorString, "ncclGetErrorString");
  find(library->CommInitAll, "ncclCommInitAll");
  find(library->CommDestroy, "ncclCommDestroy");
  find(library->CommAbort, "ncclCommAbort");
  find(library->CommGetAsyncError, "ncclCommGetAsyncError");
  find(library->AllReduce, "ncclAllReduce");
  find(library->ReduceScatter, "ncclReduceScatter");
  find(library->AllGather, "ncclAllGather");
  find(library->Send, "ncclSend");
  find(library->Recv, "ncclRecv");
  find(library->GroupStart, "ncclGroupStart");
  find(library->GroupEnd, "ncclGroupEnd");
  if (!missing.empty()) {
    return failed_precondition(str_cat(library->path, " has no ", missing));
  }
  int version = 0;
  const ncclResult_t result = library->GetVersion(&version);
  if (result != ncclSuccess) {
    return failed_precondition(str_cat(library->path, ": ", library->GetErrorString(result)));
  }
  library->version = version_text(version);
  if (version < kOldestVersion) {
    return failed_precondition(str_cat(library->path,
                                       " is NCCL ",
                                       library->version,
                                       ", ",
                                       version_text(kOldestVersion),
                                       " or later is needed"));
  }
  return std::shared_ptr<const NcclLibrary>(std::move(library));
}

}  // namespace tessera
