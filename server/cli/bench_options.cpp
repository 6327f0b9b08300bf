#include "server/cli/bench_options.h"

namespace tessera::cli {
namespace {

constexpr auto kBench = static_cast<uint8_t>(Role::kBench);
constexpr int64_t kMaxTokens = int64_t{1} << 20;
constexpr int64_t kMaxSeconds = int64_t{7} * 24 * 3600;

std::vector<OptionSpec> target_options() {
  return {
      {.name = "url",
       .group = "Target",
       .field = &Options::url,
       .help = "The server: http://HOST:PORT or grpc://HOST:PORT",
       .roles = kBench},
      {.name = "api",
       .group = "Target",
       .field = &Options::api,
       .help = "What is asked for; random prompts are token ids in completions, words in chat",
       .choices = {"completions", "chat"},
       .roles = kBench},
      {.name = "model",
       .group = "Target",
       .field = &Options::bench_model,
       .help = "Model to ask for (default: the first that the server lists)",
       .roles = kBench},
      {.name = "api-key",
       .group = "Target",
       .field = &Options::bench_api_key,
       .help = "Key to send. Prefer TESSERA_API_KEY: other users of the machine can see a command "
               "line",
       .is_secret = true,
       .roles = kBench},
      {.name = "request-timeout",
       .group = "Target",
       .field = &Options::bench_timeout_s,
       .help = "A request that takes longer has failed",
       .minimum = 1,
       .maximum = kMaxSeconds,
       .unit = OptionUnit::kSeconds,
       .roles = kBench},
  };
}

std::vector<OptionSpec> load_options() {
  return {
      {.name = "rate",
       .group = "Load",
       .field = &Options::rate,
       .help = "Requests per second, sent whatever the server does (open loop)",
       .roles = kBench},
      {.name = "concurrency",
       .group = "Load",
       .field = &Options::concurrency,
       .help = "Without --rate so many requests are open all the time (closed loop); with it at "
               "most so many; 0 for no cap",
       .maximum = 1'000'000,
       .roles = kBench},
      {.name = "arrivals",
       .group = "Load",
       .field = &Options::arrivals,
       .help = "Times between requests at a --rate; trace: those of --data mooncake",
       .choices = {"poisson", "constant", "gamma", "trace"},
       .roles = kBench},
      {.name = "burstiness",
       .group = "Load",
       .field = &Options::burstiness,
       .help = "Shape of gamma arrivals: below 1 burstier than poisson, above 1 steadier",
       .roles = kBench},
      {.name = "trace-speed",
       .group = "Load",
       .field = &Options::trace_speed,
       .help = "2 replays a trace twice as fast",
       .roles = kBench},
  };
}

std::vector<OptionSpec> extent_options() {
  return {
      {.name = "requests",
       .group = "Load",
       .field = &Options::num_requests,
       .help = "Requests to send, the warm-up included; 0 for no limit",
       .maximum = 100'000'000,
       .roles = kBench},
      {.name = "duration",
       .group = "Load",
       .field = &Options::duration_s,
       .help = "No request is sent after so long; 0 for no limit",
       .maximum = kMaxSeconds,
       .unit = OptionUnit::kSeconds,
       .roles = kBench},
      {.name = "grace",
       .group = "Load",
       .field = &Options::grace_s,
       .help = "How long open requests get after --duration",
       .maximum = kMaxSeconds,
       .unit = OptionUnit::kSeconds,
       .roles = kBench},
      {.name = "warmup",
       .group = "Load",
       .field = &Options::num_warmup,
       .help = "First requests, left out of all figures",
       .maximum = 100'000'000,
       .roles = kBench},
      {.name = "cancel-share",
       .group = "Load",
       .field = &Options::cancel_share,
       .help = "Share of requests, 0 to 1, that the client leaves in the middle of the answer",
       .roles = kBench},
      {.name = "max-errors",
       .group = "Load",
       .field = &Options::max_errors,
       .help = "More failed requests end the run; 0 for no limit",
       .maximum = 100'000'000,
       .roles = kBench},
      {.name = "seed",
       .group = "Load",
       .field = &Options::bench_seed,
       .help = "Of times, prompts and what is cancelled",
       .roles = kBench},
      {.name = "client-threads",
       .group = "Load",
       .field = &Options::client_threads,
       .help = "Threads that send and receive, each its share of the requests",
       .minimum = 1,
       .maximum = 256,
       .roles = kBench},
  };
}

std::vector<OptionSpec> data_options() {
  return {
      {.name = "data",
       .group = "Data",
       .field = &Options::data,
       .help = "Prompts: random token ids; such after one of a few prefixes; lines of a file "
               "{\"prompt\" or \"messages\", \"output_tokens\"}; or of a Mooncake trace "
               "{\"timestamp\", \"input_length\", \"output_length\", \"hash_ids\"}",
       .choices = {"random", "shared-prefix", "jsonl", "mooncake"},
       .roles = kBench},
      {.name = "data-file",
       .group = "Data",
       .field = &Options::data_file,
       .help = "File of jsonl and mooncake",
       .roles = kBench},
      {.name = "input-tokens",
       .group = "Data",
       .field = &Options::input_tokens,
       .help = "Length of a random prompt, without the prefix",
       .minimum = 1,
       .maximum = kMaxTokens,
       .roles = kBench},
      {.name = "output-tokens",
       .group = "Data",
       .field = &Options::output_tokens,
       .help = "Length of an answer, where a file does not say",
       .minimum = 1,
       .maximum = kMaxTokens,
       .roles = kBench},
      {.name = "length-range",
       .group = "Data",
       .field = &Options::length_range,
       .help = "R from 0 to below 1: random lengths are uniform in (1 - R) to (1 + R) times theirs",
       .roles = kBench},
      {.name = "prefix-tokens",
       .group = "Data",
       .field = &Options::prefix_tokens,
       .help = "Length of a shared prefix",
       .maximum = kMaxTokens,
       .roles = kBench},
      {.name = "prefix-groups",
       .group = "Data",
       .field = &Options::num_prefix_groups,
       .help = "Different shared prefixes",
       .minimum = 1,
       .maximum = 100'000,
       .roles = kBench},
      {.name = "token-ids",
       .group = "Data",
       .field = &Options::token_ids,
       .help = "FIRST:END, the random ids; all must be in the model's vocabulary",
       .roles = kBench},
  };
}

std::vector<OptionSpec> sampling_options() {
  return {
      {.name = "temperature",
       .group = "Data",
       .field = &Options::temperature,
       .help = "Of sampling; 0 is greedy",
       .roles = kBench},
      {.name = "ignore-eos",
       .group = "Data",
       .field = &Options::ignore_eos,
       .help = "Answers are as long as asked for",
       .roles = kBench},
  };
}

std::vector<OptionSpec> result_options() {
  return {
      {.name = "goodput",
       .group = "Output",
       .field = &Options::goodput,
       .help = "ttft:MS, tpot:MS or e2el:MS; repeat for more. Requests that meet all are good",
       .roles = kBench},
      {.name = "json",
       .group = "Output",
       .field = &Options::json_path,
       .help = "File for all figures and raw lists, with the keys of `vllm bench serve`",
       .roles = kBench},
      {.name = "html",
       .group = "Output",
       .field = &Options::html_path,
       .help = "File for one page of tables and plots",
       .roles = kBench},
      {.name = "records",
       .group = "Output",
       .field = &Options::records_path,
       .help = "File for one line of JSON a request",
       .roles = kBench},
  };
}

}  // namespace

std::vector<OptionSpec> bench_options() {
  std::vector<OptionSpec> table = target_options();
  for (const auto& part :
       {load_options(), extent_options(), data_options(), sampling_options(), result_options()}) {
    table.insert(table.end(), part.begin(), part.end());
  }
  return table;
}

Status check_bench_options(const Options& options) {
  if (options.url.empty()) {
    return invalid_argument(
        "no target: give a URL, as in `tessera bench http://127.0.0.1:8000 --rate 4 --requests "
        "100`");
  }
  return Status::ok();
}

}  // namespace tessera::cli
