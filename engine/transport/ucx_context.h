// UCX's context and registered memory. UCX's own headers stay in the ucx_*.cpp files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "engine/base/result.h"

struct ucp_context;
struct ucp_mem;

namespace tessera {

/// Of the library that this process has, "1.13.1".
[[nodiscard]] std::string ucx_version();

/// One for each sender or receiver. Any thread.
class UcxContext final {
 public:
  /// What UCX_* environment variables do not say is set to what this transport needs. With
  /// `is_for_cuda` UCX asks the driver what memory is, in the whole process, and has to know GPUs'.
  /// Errors: UNAVAILABLE, FAILED_PRECONDITION (a UCX without CUDA support; says how to get one).
  [[nodiscard]] static Result<std::shared_ptr<UcxContext>> create(bool is_for_cuda = false);
  ~UcxContext();
  UcxContext(const UcxContext&) = delete;
  UcxContext& operator=(const UcxContext&) = delete;

  [[nodiscard]] ucp_context* get() const noexcept { return context_; }

 private:
  explicit UcxContext(ucp_context* context) : context_(context) {}
  [[nodiscard]] Status check_cuda() const;

  ucp_context* context_;
};

/// Memory that UCX may read and a peer may write. Move-only.
class UcxMemory final {
 public:
  /// `is_cuda`: it is a GPU's, whole or part of one allocation of cudaMalloc(), and that GPU is the
  /// thread's current one, and the context is for it; else the host's. Errors: INVALID_ARGUMENT
  /// (memory that the host cannot read), UNAVAILABLE.
  [[nodiscard]] static Result<UcxMemory> create(const std::shared_ptr<UcxContext>& context,
                                                void* base,
                                                int64_t num_bytes,
                                                bool is_cuda = false);
  /// New memory in the host, in a segment that peers on this host can map where there is such a
  /// lane. Errors: UNAVAILABLE.
  [[nodiscard]] static Result<UcxMemory> allocate(const std::shared_ptr<UcxContext>& context,
                                                  int64_t num_bytes);
  /// Takes allocated memory out of use while someone may still write it (README.md, "The fence"):
  /// its content is given back, its addresses and keys stay valid for the life of the process.
  static void revoke(UcxMemory memory);
  ~UcxMemory();
  UcxMemory(UcxMemory&& other) noexcept;
  UcxMemory& operator=(UcxMemory&&) = delete;
  UcxMemory(const UcxMemory&) = delete;
  UcxMemory& operator=(const UcxMemory&) = delete;

  /// What a peer needs to write here. Errors: UNAVAILABLE.
  [[nodiscard]] Result<std::string> remote_key() const;
  [[nodiscard]] bool is_host() const noexcept { return is_host_; }
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] int64_t num_bytes() const noexcept { return num_bytes_; }

 private:
  UcxMemory(std::shared_ptr<UcxContext> context, ucp_mem* memory)
      : context_(std::move(context)), memory_(memory) {}
  /// Asks UCX what the memory is.
  Status query();

  std::shared_ptr<UcxContext> context_;  // shared: revoked memory outlives its receiver
  ucp_mem* memory_;
  std::byte* data_ = nullptr;
  int64_t num_bytes_ = 0;
  bool is_host_ = true;
};

}  // namespace tessera
