#include "engine/transport/ucx_context.h"

#include <array>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include <signal.h>
#include <sys/mman.h>
#include <ucp/api/ucp.h>
#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/text.h"

namespace tessera {
namespace {

struct Setting {
  const char* name;  // as ucp_config_modify() knows it
  const char* value;
  const char* variables;   // of the environment that say the same, separated by spaces
  const char* transports;  // that have it; UCX warns about what no transport takes. Empty: all
};

constexpr const char* kSharedMemory = "shm sm mm sysv posix";

// Error handling: without it shared memory is not offered to endpoints that report failures.
// Segments and the queue of them: software puts go out segment by segment, and every time the queue
// is full the two sides wait for each other's turn on a processor. A segment in shared memory must
// stay below 64 KiB: UCX 1.13.1 truncates longer ones without a word (the self-test notices).
// Keepalive: how soon the death of a silent peer on a lane without sockets is seen.
// Allocation: a peer on this host can map memory of sysv, and it does not depend on the size of
// /dev/shm; a store into a posix segment when that is full would kill the sender.
constexpr std::array<Setting, 7> kSettings = {{
    {"MM_ERROR_HANDLING", "y", "UCX_SYSV_ERROR_HANDLING UCX_POSIX_ERROR_HANDLING", kSharedMemory},
    {"MM_SEG_SIZE", "32k", "UCX_SYSV_SEG_SIZE UCX_POSIX_SEG_SIZE", kSharedMemory},
    {"MM_FIFO_SIZE", "256", "UCX_SYSV_FIFO_SIZE UCX_POSIX_FIFO_SIZE", kSharedMemory},
    {"TX_SEG_SIZE", "256k", "UCX_TCP_TX_SEG_SIZE", "tcp"},
    {"RX_SEG_SIZE", "256k", "UCX_TCP_RX_SEG_SIZE", "tcp"},
    {"KEEPALIVE_INTERVAL", "1s", "UCX_KEEPALIVE_INTERVAL", ""},
    {"ALLOC_PRIO", "md:sysv,thp,mmap", "UCX_ALLOC_PRIO", ""},
}};

/// UCX itself reads the environment; this only keeps from overriding it.
std::optional<std::string> environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());  // NOLINT(concurrency-mt-unsafe)
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

bool is_set_by_user(const Setting& setting) {
  std::istringstream variables(setting.variables);
  for (std::string variable; variables >> variable;) {
    if (environment(variable)) {
      return true;
    }
  }
  return false;
}

bool has_taker(const Setting& setting) {
  const std::optional<std::string> chosen = environment("UCX_TLS");
  if (!chosen || *chosen == "all" || *setting.transports == '\0') {
    return true;
  }
  std::istringstream transports(setting.transports);
  for (std::string transport; transports >> transport;) {
    if (chosen->find(transport) != std::string::npos) {
      return true;
    }
  }
  return false;
}

void apply_settings(ucp_config_t* config) {
  for (const Setting& setting : kSettings) {
    if (is_set_by_user(setting) || !has_taker(setting)) {
      continue;
    }
    const ucs_status_t status = ucp_config_modify(config, setting.name, setting.value);
    if (status != UCS_OK) {
      log_debug("ucx_setting_unknown", "name", setting.name, "error", ucs_status_string(status));
    }
  }
}

/// Gives back the handlers that the library installed when it was loaded: crashes are the server's.
void disable_signal_handlers() {
  if (environment("UCX_HANDLE_ERRORS")) {
    return;
  }
  for (const int signal : {SIGILL, SIGBUS, SIGFPE, SIGSEGV}) {
    struct sigaction current {};  // libraries of late install none, and complain
    if (sigaction(signal, nullptr, &current) == 0 && current.sa_handler != SIG_DFL) {
      ucs_debug_disable_signal(signal);
    }
  }
}

/// What that cache does not hold UCX takes for the host's. It is filled by hooks in the CUDA
/// library, which do not see what was allocated before UCX began, nor what a statically linked
/// runtime does.
void disable_memory_type_cache() {
  if (environment("UCX_MEMTYPE_CACHE")) {
    return;
  }
  const ucs_status_t status = ucs_global_opts_set_value("MEMTYPE_CACHE", "n");
  if (status != UCS_OK) {
    log_warning("ucx_setting_unknown", "name", "MEMTYPE_CACHE", "error", ucs_status_string(status));
  }
}

/// Whether the kernel can read the byte: device memory that UCX takes for the host's cannot be.
bool is_readable(const char* byte) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) {
    return false;
  }
  const bool could_read = write(ends[1], byte, 1) == 1;
  close(ends[0]);
  close(ends[1]);
  return could_read;
}

}  // namespace

Result<std::shared_ptr<UcxContext>> UcxContext::create(bool is_for_cuda) {
  static std::once_flag once;
  std::call_once(once, disable_signal_handlers);
  if (is_for_cuda) {
    disable_memory_type_cache();
  }
  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK) {
    return unavailable(str_cat("UCX configuration: ", ucs_status_string(status)));
  }
  apply_settings(config);
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED;
  params.features = UCP_FEATURE_RMA | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.mt_workers_shared = 1;
  ucp_context_h context = nullptr;
  status = ucp_init(&params, config, &context);
  ucp_config_release(config);
  if (status != UCS_OK) {
    return unavailable(str_cat("UCX did not start: ", ucs_status_string(status)));
  }
  std::shared_ptr<UcxContext> made(new UcxContext(context));
  TESSERA_RETURN_IF_ERROR(is_for_cuda ? made->check_cuda() : Status::ok());
  return made;
}

std::string ucx_version() {
  return ucp_get_version_string();
}

UcxContext::~UcxContext() {
  ucp_cleanup(context_);
}

Status UcxContext::check_cuda() const {
  ucp_context_attr_t attributes{};
  attributes.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES;
  const ucs_status_t status = ucp_context_query(context_, &attributes);
  if (status != UCS_OK) {
    return unavailable(
        str_cat("UCX cannot tell what memory it knows: ", ucs_status_string(status)));
  }
  if ((attributes.memory_types & UCS_BIT(UCS_MEMORY_TYPE_CUDA)) != 0) {
    return Status::ok();
  }
  return failed_precondition(str_cat(
      "this UCX (",
      ucp_get_version_string(),
      ") has no CUDA support in use and would take GPU memory for the host's. Install one "
      "that has, for example the PyPI package libucx-cu13, name the folder of its libucp.so "
      "first in LD_LIBRARY_PATH, and let UCX_TLS, if it is set, name cuda_copy and "
      "cuda_ipc"));
}

Result<UcxMemory> UcxMemory::create(const std::shared_ptr<UcxContext>& context,
                                    void* base,
                                    int64_t num_bytes,
                                    bool is_cuda) {
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  if (is_cuda) {
    params.field_mask |= UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE;
    params.memory_type = UCS_MEMORY_TYPE_CUDA;
  }
  params.address = base;
  params.length = static_cast<size_t>(num_bytes);
  ucp_mem_h handle = nullptr;
  const ucs_status_t status = ucp_mem_map(context->get(), &params, &handle);
  if (status != UCS_OK) {
    return unavailable(str_cat("UCX cannot register memory: ", ucs_status_string(status)));
  }
  UcxMemory memory(context, handle);
  TESSERA_RETURN_IF_ERROR(memory.query());
  if (is_cuda && memory.is_host_) {
    return unavailable("UCX registered GPU memory as the host's");
  }
  const char* first = static_cast<const char*>(base);
  if (memory.is_host_ && !(is_readable(first) && is_readable(first + num_bytes - 1))) {
    return invalid_argument(
        "the memory is not the host's, and this build of UCX knows no other (no CUDA support)");
  }
  return memory;
}

Result<UcxMemory> UcxMemory::allocate(const std::shared_ptr<UcxContext>& context,
                                      int64_t num_bytes) {
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_FLAGS;
  params.length = static_cast<size_t>(num_bytes);
  params.flags = UCP_MEM_MAP_ALLOCATE;
  ucp_mem_h handle = nullptr;
  const ucs_status_t status = ucp_mem_map(context->get(), &params, &handle);
  if (status != UCS_OK) {
    return unavailable(
        str_cat("UCX cannot allocate ", num_bytes, " bytes: ", ucs_status_string(status)));
  }
  UcxMemory memory(context, handle);
  TESSERA_RETURN_IF_ERROR(memory.query());
  return memory;
}

Status UcxMemory::query() {
  ucp_mem_attr_t attributes{};
  attributes.field_mask =
      UCP_MEM_ATTR_FIELD_ADDRESS | UCP_MEM_ATTR_FIELD_LENGTH | UCP_MEM_ATTR_FIELD_MEM_TYPE;
  const ucs_status_t status = ucp_mem_query(memory_, &attributes);
  if (status != UCS_OK) {
    return unavailable(str_cat("UCX cannot tell the kind of memory: ", ucs_status_string(status)));
  }
  is_host_ = attributes.mem_type == UCS_MEMORY_TYPE_HOST;
  data_ = static_cast<std::byte*>(attributes.address);
  num_bytes_ = static_cast<int64_t>(attributes.length);
  return Status::ok();
}

void UcxMemory::revoke(UcxMemory memory) {
  // Only gives memory back; should it fail, the addresses are as far from use. The first is for
  // shared segments, the second for others.
  const auto size = static_cast<size_t>(memory.num_bytes_);
  if (madvise(memory.data_, size, MADV_REMOVE) != 0) {
    static_cast<void>(madvise(memory.data_, size, MADV_DONTNEED));
  }
  static std::mutex mutex;
  static auto* const revoked = new std::vector<UcxMemory>();  // never destroyed
  const std::lock_guard lock(mutex);
  revoked->push_back(std::move(memory));
}

UcxMemory::UcxMemory(UcxMemory&& other) noexcept
    : context_(std::move(other.context_)),
      memory_(std::exchange(other.memory_, nullptr)),
      data_(other.data_),
      num_bytes_(other.num_bytes_),
      is_host_(other.is_host_) {}

UcxMemory::~UcxMemory() {
  if (memory_ != nullptr) {
    ucp_mem_unmap(context_->get(), memory_);
  }
}

Result<std::string> UcxMemory::remote_key() const {
  void* buffer = nullptr;
  size_t size = 0;
  const ucs_status_t status = ucp_rkey_pack(context_->get(), memory_, &buffer, &size);
  if (status != UCS_OK) {
    return unavailable(str_cat("UCX cannot pack a remote key: ", ucs_status_string(status)));
  }
  std::string key(static_cast<const char*>(buffer), size);
  ucp_rkey_buffer_release(buffer);
  return key;
}

}  // namespace tessera
