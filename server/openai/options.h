// Settings of the OpenAI-style front end. Plain data, immutable after start.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/config/model_config.h"
#include "server/openai/protocol/limits.h"

namespace tessera::openai {

struct OpenAiOptions {
  std::vector<std::string> served_model_names;  ///< at least one; the first is the default
  std::string model_root;                       ///< shown as `root` by /v1/models
  std::string version;                          ///< shown by /version
  int64_t max_model_len = 0;
  int64_t vocab_size = 0;             ///< of the model; 0: the tokenizer's
  std::vector<std::string> api_keys;  ///< none: open
  Limits limits;
  GenerationDefaults defaults;                   ///< sampling values where a request says nothing
  std::chrono::milliseconds request_timeout{0};  ///< 0: none
  int32_t num_prompt_threads = 2;                ///< parse, render and tokenise
  int64_t max_prompt_jobs = 256;                 ///< waiting or running; above: 429
  int64_t max_prompt_job_bytes = int64_t{64} << 20;
  bool has_operator_port = false;    ///< /metrics and /cluster are on a listener of their own
  bool has_console = true;           ///< a page for people at /
  bool has_vllm_metrics = true;      ///< /metrics has vLLM's names, too
  std::function<Status()> liveness;  ///< for /livez; none: alive while it answers
};

}  // namespace tessera::openai
