// UCX's context and registered memory. UCX's own headers stay in the ucx_*.cpp files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/result.h"

struct ucp_context;
struct ucp_mem;

namespace tessera {

/// One for each sender or receiver. Any thread.
class UcxContext final {
 public:
  /// What UCX_* environment variables do not say is set to what this transport needs.
  /// Errors: UNAVAILABLE.
  [[nodiscard]] static Result<std::unique_ptr<UcxContext>> create();
  ~UcxContext();
  UcxContext(const UcxContext&) = delete;
  UcxContext& operator=(const UcxContext&) = delete;

  [[nodiscard]] ucp_context* get() const noexcept { return context_; }

 private:
  explicit UcxContext(ucp_context* context) : context_(context) {}

  ucp_context* context_;
};

/// Memory that UCX may read and a peer may write. Move-only; the context outlives it.
class UcxMemory final {
 public:
  /// Errors: INVALID_ARGUMENT (memory that neither the host nor this build of UCX can read),
  /// UNAVAILABLE.
  [[nodiscard]] static Result<UcxMemory> create(UcxContext& context, void* base, int64_t num_bytes);
  ~UcxMemory();
  UcxMemory(UcxMemory&& other) noexcept;
  UcxMemory& operator=(UcxMemory&&) = delete;
  UcxMemory(const UcxMemory&) = delete;
  UcxMemory& operator=(const UcxMemory&) = delete;

  /// What a peer needs to write here. Errors: UNAVAILABLE.
  [[nodiscard]] Result<std::string> remote_key() const;
  [[nodiscard]] bool is_host() const noexcept { return is_host_; }

 private:
  UcxMemory(UcxContext& context, ucp_mem* memory) : context_(&context), memory_(memory) {}

  UcxContext* context_;
  ucp_mem* memory_;
  bool is_host_ = true;
};

}  // namespace tessera
