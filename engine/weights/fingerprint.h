// Names of things that must not be mixed up, as texts of SHA-256.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/config/model_config.h"

struct evp_md_ctx_st;

namespace tessera {

/// SHA-256 over parts, each with its length before it.
class Fingerprint final {
 public:
  Fingerprint();
  Fingerprint& add(std::string_view part);
  /// 32 hexadecimal digits: the first 128 bits. Call once.
  [[nodiscard]] std::string finish();

 private:
  struct Deleter {
    void operator()(evp_md_ctx_st* context) const noexcept;
  };
  std::unique_ptr<evp_md_ctx_st, Deleter> context_;
};

/// Of the numbers that decide what a model's weights look like and what its latents mean: sizes,
/// RoPE, norms, routing. Not of the weights themselves.
[[nodiscard]] std::string model_fingerprint(const ModelConfig& config);

}  // namespace tessera
