#include "server/cli/option_table.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <optional>

#include "engine/base/size_text.h"
#include "engine/base/text.h"
#include "server/cli/bench_options.h"
#include "server/cli/role_sets.h"
#include "server/cli/routing_options.h"
#include "server/cli/tool_options.h"

namespace tessera::cli {
namespace {

constexpr OptionUnit kBytes = OptionUnit::kBytes;
constexpr OptionUnit kSeconds = OptionUnit::kSeconds;
constexpr int64_t kMaxSeconds = int64_t{7} * 24 * 3600;
constexpr int64_t kMaxTokens = int64_t{1} << 24;

std::vector<OptionSpec> model_options() {
  return {
      {.name = "model",
       .group = "Model",
       .field = &Options::model,
       .help = "Checkpoint folder: config.json, safetensors, tokenizer",
       .roles = kModelRoles},
      {.name = "served-model-name",
       .group = "Model",
       .field = &Options::served_model_names,
       .help = "Name that clients ask for; repeat for more (default: the folder's name)",
       .roles = kFronts},
      {.name = "engine",
       .group = "Model",
       .field = &Options::engine,
       .help = "mock runs no model: it waits as --mock-* say and answers with made-up tokens, to "
               "try routers, clients and deployments on any machine; the folder needs config.json "
               "and the tokenizer's files. All workers of a router must have the same",
       .choices = {"model", "mock"},
       .roles = kWorkers},
      {.name = "mock-prefill-tokens-per-s",
       .group = "Model",
       .field = &Options::mock_prefill_tokens_per_s,
       .help = "Prompt tokens that the mock engine takes a second for",
       .minimum = 1,
       .maximum = 1'000'000'000,
       .roles = kWorkers},
      {.name = "mock-decode-step-ms",
       .group = "Model",
       .field = &Options::mock_decode_step_ms,
       .help = "Milliseconds that the mock engine takes for one more token of every sequence",
       .maximum = 60'000,
       .roles = kWorkers},
      {.name = "device",
       .group = "Model",
       .field = &Options::device,
       .help = "What computes; auto is GPUs where they are, but for workers that hand caches over: "
               "the CPU",
       .choices = {"auto", "cpu", "cuda"},
       .roles = kWorkers | role_bits({Role::kEval})},
      {.name = "nccl-library",
       .group = "Model",
       .field = &Options::nccl_library,
       .help = "Path of libnccl for ranks on several GPUs (default: as the system finds it)",
       .roles = kWorkers | role_bits({Role::kEval})},
      {.name = "all-reduce",
       .group = "Model",
       .field = &Options::all_reduce,
       .help = "Sums over GPUs; auto goes past NCCL, through peer memory, where that is faster, as "
               "measured at start",
       .choices = {"auto", "nccl"},
       .roles = kWorkers | role_bits({Role::kEval})},
      {.name = "gpu-memory-utilization",
       .group = "Model",
       .field = &Options::gpu_memory_utilization,
       .help = "Share of a GPU's memory that weights and cache may take together",
       .roles = kWorkers},
      {.name = "dtype",
       .group = "Model",
       .field = &Options::dtype,
       .help = "Type of products and cache; auto is what the machine multiplies fastest",
       .choices = {"auto", "bfloat16", "float32"},
       .roles = kRunners},
      {.name = "kv-cache-dtype",
       .group = "Model",
       .field = &Options::kv_cache_dtype,
       .help = "Type of the cached latents: auto is that of products; fp8_e4m3 takes 57 to 71 % of "
               "bfloat16's bytes and rounds to 3 bits behind the first, with a scale a token. A "
               "prefill worker needs what its decode groups have",
       .choices = {"auto", "fp8_e4m3"},
       .roles = kWorkers | role_bits({Role::kEval})},
      {.name = "load-format",
       .group = "Model",
       .field = &Options::load_format,
       .help = "dummy fills the weights at random from --seed: config.json and tokenizer files are "
               "enough",
       .choices = {"auto", "safetensors", "dummy"},
       .roles = kWorkers},
      {.name = "seed",
       .group = "Model",
       .field = &Options::seed,
       .help = "Seed of dummy weights",
       .roles = kWorkers},
      {.name = "chat-template",
       .group = "Model",
       .field = &Options::chat_template,
       .help = "Jinja file used instead of the checkpoint's chat template",
       .roles = kFronts},
  };
}

std::vector<OptionSpec> http_options() {
  return {
      {.name = "host",
       .group = "HTTP",
       .field = &Options::host,
       .help = "Address to listen on; 0.0.0.0 for all"},
      {.name = "port",
       .group = "HTTP",
       .field = &Options::port,
       .help = "Port to listen on; 0 for any free one",
       .maximum = 65535},
      {.name = "metrics-host",
       .group = "HTTP",
       .field = &Options::metrics_host,
       .help = "Address of --metrics-port, which it needs; no key is asked for there",
       .roles = kFronts},
      {.name = "metrics-port",
       .group = "HTTP",
       .field = &Options::metrics_port,
       .help = "Port of /metrics and /cluster, which --port then does not answer; 0: they are on "
               "--port, with a key",
       .maximum = 65535,
       .roles = kFronts},
      {.name = "api-key",
       .group = "HTTP",
       .field = &Options::api_keys,
       .help = "Key that clients must send; repeat for more. Prefer --api-key-file: other users of "
               "the machine can see a command line",
       .is_secret = true,
       .roles = kFronts},
      {.name = "api-key-file",
       .group = "HTTP",
       .field = &Options::api_key_file,
       .help = "File of keys, one a line; read again on SIGHUP",
       .roles = kFronts},
      {.name = "console",
       .group = "HTTP",
       .field = &Options::console,
       .help =
           "A page for people at /: the cluster and a chat. It asks for a key where one is needed",
       .roles = kFronts},
      {.name = "shutdown-timeout",
       .group = "HTTP",
       .field = &Options::shutdown_timeout_s,
       .help = "Time that open requests get after SIGTERM",
       .maximum = kMaxSeconds,
       .unit = kSeconds},
  };
}

std::vector<OptionSpec> engine_options() {
  return {
      {.name = "max-model-len",
       .group = "Engine",
       .field = &Options::max_model_len,
       .help = "Longest prompt plus answer in tokens; auto is the model's own limit",
       .maximum = kMaxTokens,
       .is_auto_when_zero = true},
      {.name = "max-num-seqs",
       .group = "Engine",
       .field = &Options::max_num_seqs,
       .help = "Sequences that run at once",
       .minimum = 1,
       .maximum = 65'536,
       .roles = kWorkers},
      {.name = "max-num-batched-tokens",
       .group = "Engine",
       .field = &Options::max_num_batched_tokens,
       .help = "Tokens of one step, prefill and decode together",
       .minimum = 1,
       .maximum = int64_t{1} << 17,
       .roles = kWorkers},
      {.name = "enable-prefix-caching",
       .group = "Engine",
       .field = &Options::enable_prefix_caching,
       .help = "Reuse the cache of equal prompt beginnings",
       .roles = kWorkers},
      {.name = "kv-cache-memory",
       .group = "Engine",
       .field = &Options::kv_cache_memory_bytes,
       .help = "Memory of the latent cache; auto is a share of what is free",
       .unit = kBytes,
       .is_auto_when_zero = true,
       .roles = kWorkers},
      {.name = "num-blocks",
       .group = "Engine",
       .field = &Options::num_blocks,
       .help = "Cache blocks of 64 tokens, instead of --kv-cache-memory",
       .maximum = int64_t{1} << 30,
       .is_auto_when_zero = true,
       .roles = kWorkers},
      {.name = "threads",
       .group = "Engine",
       .field = &Options::threads,
       .help = "Compute threads; auto is one for each core",
       .maximum = 1024,
       .is_auto_when_zero = true,
       .roles = kRunners},
  };
}

std::vector<OptionSpec> parallel_options() {
  return {
      {.name = "combined",
       .group = "Parallel",
       .field = &Options::combined,
       .help = "One engine that prefills and decodes, without a handoff",
       .roles = role_bits({Role::kServe})},
      {.name = "tensor-parallel-size",
       .group = "Parallel",
       .field = &Options::tensor_parallel_size,
       .help =
           "Ranks of the decode group (of the worker, in its role); auto is 2 for decode, else 1",
       .maximum = 64,
       .is_auto_when_zero = true,
       .roles = kWorkers},
      {.name = "attention-sharding",
       .group = "Parallel",
       .field = &Options::attention_sharding,
       .help = "How decode ranks divide the latent cache: replicated (exact), dcp (exact, blocks "
               "dealt out), tpla (columns sliced: approximate, least memory). auto is tpla with a "
               "calibration (named, or in the model's folder), else replicated. A prefill worker "
               "needs what its decode groups have",
       .choices = {"auto", "replicated", "tpla", "dcp"},
       .roles = kWorkers},
      {.name = "tpla-slices",
       .group = "Parallel",
       .field = &Options::tpla_slices,
       .help = "Slices of the latent in tpla; divides the ranks",
       .minimum = 1,
       .maximum = 64,
       .roles = kWorkers},
      {.name = "tpla-basis",
       .group = "Parallel",
       .field = &Options::tpla_basis,
       .help = "Basis of the latent before it is sliced; auto is the calibration's, or hadamard",
       .choices = {"auto", "none", "hadamard"},
       .roles = kWorkers},
      {.name = "tpla-calibration",
       .group = "Parallel",
       .field = &Options::tpla_calibration,
       .help = "Calibration file made for this model by tessera calibrate; without one, "
               "tpla_calibration.safetensors in the model's folder",
       .roles = kWorkers},
      {.name = "local-prefill-max-tokens",
       .group = "Parallel",
       .field = &Options::max_local_prefill_tokens,
       .help =
           "Prompts up to this long are prefilled by the decode group itself (router and decode "
           "groups need it)",
       .maximum = int64_t{1} << 17,
       .roles = role_bits({Role::kServe, Role::kRouter, Role::kDecode})},
  };
}

std::vector<OptionSpec> limit_options() {
  return {
      {.name = "request-timeout",
       .group = "Limits",
       .field = &Options::request_timeout_s,
       .help = "A request that takes longer is ended with an error",
       .minimum = 1,
       .maximum = kMaxSeconds,
       .unit = kSeconds,
       .roles = kFronts},
      {.name = "max-queued-requests",
       .group = "Limits",
       .field = &Options::max_queued_requests,
       .help = "Requests that may wait; further ones are answered 429",
       .minimum = 1,
       .maximum = 1'000'000,
       .roles = kWorkers},
      {.name = "max-request-bytes",
       .group = "Limits",
       .field = &Options::max_request_bytes,
       .help = "Largest request body",
       .minimum = 1024,
       .maximum = int64_t{1} << 30,
       .unit = kBytes},
      {.name = "max-header-bytes",
       .group = "Limits",
       .field = &Options::max_header_bytes,
       .help = "Largest request header",
       .minimum = 1024,
       .maximum = int64_t{1} << 20,
       .unit = kBytes},
      {.name = "max-connections",
       .group = "Limits",
       .field = &Options::max_connections,
       .help = "Open connections",
       .minimum = 1,
       .maximum = 1'000'000},
      {.name = "max-n",
       .group = "Limits",
       .field = &Options::max_n,
       .help = "Largest n of a request",
       .minimum = 1,
       .maximum = 1024,
       .roles = kFronts},
      {.name = "max-logprobs",
       .group = "Limits",
       .field = &Options::max_logprobs,
       .help = "Largest top_logprobs of a request",
       .maximum = 20,
       .roles = kFronts},
      {.name = "log-level",
       .group = "Logging",
       .field = &Options::log_level,
       .help = "Least level that is logged, on stderr",
       .choices = {"trace", "debug", "info", "warning", "error"},
       .roles = kAllRoles},
      {.name = "log-format",
       .group = "Logging",
       .field = &Options::log_format,
       .help = "Lines for people, or one JSON object a line",
       .choices = {"text", "json"},
       .roles = kAllRoles},
      {.name = "log-stats-period",
       .group = "Logging",
       .field = &Options::stats_period_s,
       .help = "A line of rates and queues this often, unless idle; 0: none",
       .maximum = 3600,
       .unit = kSeconds},
      {.name = "metrics-compat",
       .group = "Logging",
       .field = &Options::metrics_compat,
       .help = "Names that /metrics gives beside its own",
       .choices = {"vllm", "none"}},
  };
}

std::optional<bool> parse_switch(const std::string& text) {
  if (text == "true" || text == "1" || text == "on" || text == "yes") {
    return true;
  }
  if (text == "false" || text == "0" || text == "off" || text == "no") {
    return false;
  }
  return std::nullopt;
}

Status set_text(const OptionSpec& spec, const std::string& text, std::string& value) {
  const auto& choices = spec.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
    return invalid_argument(str_cat("\"", text, "\" is none of ", join_list(choices)));
  }
  value = text;
  return Status::ok();
}

std::string number_text(const OptionSpec& spec, int64_t value) {
  if (value == 0 && spec.is_auto_when_zero) {
    return "auto";
  }
  return spec.unit == kBytes ? format_size(value) : std::to_string(value);
}

Result<int64_t> parse_number(const OptionSpec& spec, const std::string& text) {
  if (spec.is_auto_when_zero && text == "auto") {
    return int64_t{0};
  }
  if (spec.unit == kBytes) {
    return parse_size(text);
  }
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || rest != end) {
    return invalid_argument(str_cat("\"", text, "\" is not a whole number"));
  }
  return value;
}

Status set_number(const OptionSpec& spec, const std::string& text, int64_t& value) {
  TESSERA_TRY(const int64_t number, parse_number(spec, text));
  if (number < spec.minimum || number > spec.maximum) {
    return invalid_argument(str_cat(text,
                                    " is outside of ",
                                    number_text(spec, spec.minimum),
                                    " to ",
                                    number_text(spec, spec.maximum)));
  }
  value = number;
  return Status::ok();
}

std::string quote_json(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
    }
    // Control characters have no place in these values; a space keeps the line readable.
    quoted += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return quoted + '"';
}

std::string value_json(const OptionSpec& spec, const std::string& value) {
  return quote_json(spec.is_secret ? "***" : value);
}

std::string value_json(const OptionSpec& spec, const std::vector<std::string>& values) {
  std::vector<std::string> items;
  items.reserve(values.size());
  for (const std::string& value : values) {
    items.push_back(value_json(spec, value));
  }
  return join_list(items);
}

std::string value_json(const OptionSpec& spec, int64_t value) {
  const std::string text = number_text(spec, value);
  return text == std::to_string(value) ? text : quote_json(text);
}

std::string value_json(const OptionSpec&, bool value) {
  return value ? "true" : "false";
}

}  // namespace

const std::vector<OptionSpec>& option_table(Role role) {
  static const auto make = [](Role of) {
    std::vector<OptionSpec> table;
    for (auto part : {model_options(),
                      tool_options(),
                      bench_options(),
                      http_options(),
                      routing_options(),
                      engine_options(),
                      parallel_options(),
                      limit_options()}) {
      std::copy_if(part.begin(), part.end(), std::back_inserter(table), [of](const auto& spec) {
        return (spec.roles & static_cast<uint8_t>(of)) != 0;
      });
    }
    return table;
  };
  static const std::vector<OptionSpec> serve = make(Role::kServe);
  static const std::vector<OptionSpec> router = make(Role::kRouter);
  static const std::vector<OptionSpec> prefill = make(Role::kPrefill);
  static const std::vector<OptionSpec> decode = make(Role::kDecode);
  static const std::vector<OptionSpec> eval = make(Role::kEval);
  static const std::vector<OptionSpec> calibrate = make(Role::kCalibrate);
  static const std::vector<OptionSpec> bench = make(Role::kBench);
  switch (role) {
    case Role::kServe:
      break;
    case Role::kRouter:
      return router;
    case Role::kPrefill:
      return prefill;
    case Role::kDecode:
      return decode;
    case Role::kEval:
      return eval;
    case Role::kCalibrate:
      return calibrate;
    case Role::kBench:
      return bench;
  }
  return serve;
}

std::string environment_name(const OptionSpec& spec) {
  std::string name = "TESSERA_";
  for (const char c : spec.name) {
    name += c == '-' ? '_' : static_cast<char>(c - 'a' + 'A');
  }
  return name;
}

Status set_option(const OptionSpec& spec,
                  const std::vector<std::string>& values,
                  Options& options) {
  if (const auto* list = std::get_if<std::vector<std::string> Options::*>(&spec.field)) {
    if (std::find(values.begin(), values.end(), "") != values.end()) {
      return invalid_argument("an empty value");
    }
    options.** list = values;
    return Status::ok();
  }
  if (values.size() != 1) {
    return invalid_argument(str_cat("takes one value, found ", values.size()));
  }
  const std::string& text = values.front();
  if (const auto* field = std::get_if<std::string Options::*>(&spec.field)) {
    return set_text(spec, text, options.**field);
  }
  if (const auto* field = std::get_if<int64_t Options::*>(&spec.field)) {
    return set_number(spec, text, options.**field);
  }
  const auto value = parse_switch(text);
  if (!value.has_value()) {
    return invalid_argument(str_cat("\"", text, "\" is neither true nor false"));
  }
  options.*std::get<bool Options::*>(spec.field) = *value;
  return Status::ok();
}

std::string option_json(const OptionSpec& spec, const Options& options) {
  return std::visit([&](auto field) { return value_json(spec, options.*field); }, spec.field);
}

Status validate(Role role, const Options& options) {
  if (role == Role::kBench) {
    return check_bench_options(options);
  }
  std::string faults;
  const auto add = [&](const std::string& fault) {
    faults += str_cat(faults.empty() ? "" : "\n", fault);
  };
  if (options.model.empty()) {
    add("no model: name a checkpoint folder, as in `tessera serve configs/demo_model`");
  }
  if (options.num_blocks != 0 && options.kv_cache_memory_bytes != 0) {
    add("--num-blocks and --kv-cache-memory both set the cache's size: give one");
  }
  if (options.max_num_batched_tokens < options.max_num_seqs) {
    add(str_cat("--max-num-batched-tokens ",
                options.max_num_batched_tokens,
                " is less than --max-num-seqs ",
                options.max_num_seqs,
                ": a step must hold one token of each running sequence"));
  }
  if (options.max_local_prefill_tokens > options.max_num_batched_tokens) {
    add(str_cat("--local-prefill-max-tokens ",
                options.max_local_prefill_tokens,
                " is more than --max-num-batched-tokens ",
                options.max_num_batched_tokens,
                ": a local prefill is one step"));
  }
  if (options.is_mock() && (options.device == "cuda" || !options.tpla_calibration.empty())) {
    add("--engine mock runs no model: --device cuda and --tpla-calibration mean nothing to it");
  }
  if (options.metrics_port == 0 && options.metrics_host != Options{}.metrics_host) {
    add(str_cat("--metrics-host ",
                options.metrics_host,
                " without --metrics-port: /metrics is at --host ",
                options.host,
                ", --port ",
                options.port));
  }
  for (const std::string& fault : check_routing_options(role, options)) {
    add(fault);
  }
  if (options.combined && options.attention_sharding != "auto" &&
      options.attention_sharding != "replicated") {
    add(str_cat("--combined prefills and decodes in one cache: --attention-sharding ",
                options.attention_sharding,
                " needs the handoff"));
  }
  if (options.combined && !options.tpla_calibration.empty()) {
    add("--combined prefills and decodes in one cache: --tpla-calibration needs the handoff");
  }
  for (const std::string& fault : check_tool_options(role, options)) {
    add(fault);
  }
  return faults.empty() ? Status::ok() : invalid_argument(faults);
}

}  // namespace tessera::cli
