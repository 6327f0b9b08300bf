#include "engine/weights/fingerprint.h"

#include <array>

#include <openssl/evp.h>

#include "engine/base/check.h"
#include "engine/base/text.h"

namespace tessera {

void Fingerprint::Deleter::operator()(evp_md_ctx_st* context) const noexcept {
  EVP_MD_CTX_free(context);
}

Fingerprint::Fingerprint() : context_(EVP_MD_CTX_new()) {
  TESSERA_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
                "SHA-256 is missing");
}

Fingerprint& Fingerprint::add(std::string_view part) {
  const std::string length = str_cat(part.size(), ":");
  const bool is_added = EVP_DigestUpdate(context_.get(), length.data(), length.size()) == 1 &&
                        EVP_DigestUpdate(context_.get(), part.data(), part.size()) == 1;
  TESSERA_CHECK(is_added, "SHA-256 failed");
  return *this;
}

std::string Fingerprint::finish() {
  std::array<unsigned char, 32> digest{};
  unsigned int num_bytes = 0;
  const bool is_done = EVP_DigestFinal_ex(context_.get(), digest.data(), &num_bytes) == 1;
  TESSERA_CHECK(is_done && num_bytes == digest.size(), "SHA-256 failed");
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < digest.size() / 2; ++i) {
    text += kDigits[digest[i] >> 4U];
    text += kDigits[digest[i] & 15U];
  }
  return text;
}

std::string model_fingerprint(const ModelConfig& config) {
  Fingerprint digest;
  const auto add = [&](const auto&... values) { (digest.add(str_cat(values)), ...); };
  add(config.architecture, config.vocab_size, config.hidden_size, config.num_hidden_layers);
  add(config.num_attention_heads, config.intermediate_size, config.rms_norm_eps);
  add(config.tie_word_embeddings, config.attention_bias, config.q_lora_rank, config.kv_lora_rank);
  add(config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim);
  add(config.rope_theta, config.rope_interleave, config.yarn.has_value());
  if (config.yarn) {
    const YarnScaling& yarn = *config.yarn;
    add(yarn.factor, yarn.original_max_position_embeddings, yarn.beta_fast, yarn.beta_slow);
    add(yarn.mscale, yarn.mscale_all_dim, yarn.cos_sin_factor());
  }
  add(config.n_routed_experts, config.n_shared_experts, config.num_experts_per_tok);
  add(config.moe_intermediate_size, config.first_k_dense_replace, config.moe_layer_freq);
  add(config.n_group, config.topk_group, config.norm_topk_prob, config.routed_scaling_factor);
  add(static_cast<int>(config.scoring_func), static_cast<int>(config.topk_method));
  return digest.finish();
}

}  // namespace tessera
