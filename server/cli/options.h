// What the roles of the binary can be told: plain values with their defaults. Names, help, limits
// and the roles that know an option are in option_table.cpp. Immutable once resolved.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/config/worker_config.h"

namespace tessera::cli {

/// Bits, so that an option can say which roles know it.
enum class Role : uint8_t {
  kServe = 1,       ///< all of the below on this host, or one engine with --combined
  kRouter = 2,      ///< HTTP and public gRPC in front of workers
  kPrefill = 4,     ///< computes prompts, hands caches over
  kDecode = 8,      ///< a decode group
  kEval = 16,       ///< measures what sharded decode costs in quality
  kCalibrate = 32,  ///< makes a calibration file for tpla
  kBench = 64,      ///< puts a running server under load
};

/// What `eval` is told beside the model.
struct EvalOptions {
  std::vector<std::string> modes;    ///< decode modes to compare (server/roles/eval_modes.h)
  std::vector<std::string> lengths;  ///< "N:M": prompt and decoded tokens
  int64_t num_windows = 16;
  std::string json_path;
  std::string html_path;
};

/// What `calibrate` is told beside the model.
struct CalibrateOptions {
  std::vector<std::string> calibration_texts;
  std::string output_path;      ///< empty: kTplaCalibrationFile in the model's folder
  std::string statistics_path;  ///< empty: beside the output
  int64_t num_slices = 2;
  std::string basis = "balanced";
  std::string dealing = "fold";
  std::string refit = "gradient";
  std::string logit_factor = "auto";
  std::string budget = "1.15";
  std::string window = "auto";
  int64_t num_sinks = 0;
  int64_t calibration_tokens = 200'000;
};

/// What `bench` is told; numbers that need not be whole are texts.
struct BenchOptions {
  std::string url;
  std::string api = "completions";
  std::string bench_api_key;
  std::string bench_model;  ///< empty: the first that the server lists

  std::string arrivals = "poisson";
  std::string rate;  ///< empty: a closed loop of `concurrency`
  std::string burstiness = "1";
  std::string trace_speed = "1";
  int64_t concurrency = 0;
  int64_t num_requests = 0;
  int64_t duration_s = 0;
  int64_t num_warmup = 0;
  std::string cancel_share = "0";
  int64_t max_errors = 0;
  std::vector<std::string> goodput;  ///< "ttft:MS"
  int64_t bench_timeout_s = 600;
  int64_t grace_s = 30;

  std::string data = "random";
  std::string data_file;
  int64_t input_tokens = 512;
  int64_t output_tokens = 128;
  std::string length_range = "0";
  int64_t prefix_tokens = 256;
  int64_t num_prefix_groups = 8;
  std::string token_ids = "32:1000";
  std::string temperature = "0";
  bool ignore_eos = true;
  int64_t bench_seed = 0;
  int64_t client_threads = 1;
  std::string records_path;
};

struct Options : WorkerConfig, EvalOptions, CalibrateOptions, BenchOptions {
  std::string text_path;  ///< eval: the file to run over

  std::vector<std::string> served_model_names;  ///< empty: the folder's name
  std::string chat_template;                    ///< file; empty: the checkpoint's own
  bool combined = false;                        ///< serve: one engine, no handoff

  std::string host = "127.0.0.1";
  int64_t port = 8000;  ///< HTTP; 0: any free port, printed at start
  std::string metrics_host = "127.0.0.1";
  int64_t metrics_port = 0;  ///< 0: /metrics is on `port`
  std::vector<std::string> api_keys;
  std::string api_key_file;
  int64_t shutdown_timeout_s = 30;
  bool console = true;

  std::string rpc_host = "127.0.0.1";
  int64_t rpc_port = 0;          ///< gRPC; 0: any free port, printed at start
  std::string rpc_ssl_certfile;  ///< PEM; empty, with the next two: plain text between roles
  std::string rpc_ssl_keyfile;
  std::string rpc_ssl_ca_certs;
  std::string rpc_ssl_name;  ///< in every role's certificate; empty: the host connected to

  std::vector<std::string> prefill_workers;  ///< router: "host:port" or "dns:name:port"
  std::vector<std::string> decode_workers;
  std::string routing_policy = "prefix_affinity";
  int64_t max_inflight_requests = 4096;
  int64_t worker_wait_s = 10;

  int64_t handoff_lease_s = 10;
  bool allow_staged_handoff = false;
  std::string handoff_faults;  ///< for tests

  int64_t request_timeout_s = 600;
  int64_t max_request_bytes = int64_t{8} << 20;
  int64_t max_header_bytes = int64_t{32} << 10;
  int64_t max_connections = 10'000;
  int64_t max_n = 16;
  int64_t max_logprobs = 20;

  std::string log_level = "info";
  std::string log_format = "text";
  int64_t stats_period_s = 10;  ///< 0: none
  std::string metrics_compat = "vllm";
};

/// Roles have ports of their own, so that all of them run on one host without flags.
[[nodiscard]] inline Options default_options(Role role) {
  Options options;
  switch (role) {
    case Role::kServe:
    case Role::kBench:
      break;
    case Role::kRouter:
      options.rpc_port = 9000;
      break;
    case Role::kPrefill:
      options.port = 8001;
      options.rpc_port = 9001;
      break;
    case Role::kDecode:
      options.port = 8002;
      options.rpc_port = 9002;
      break;
    case Role::kEval:
    case Role::kCalibrate:
      options.dtype = "float32";
      break;
  }
  return options;
}

}  // namespace tessera::cli
