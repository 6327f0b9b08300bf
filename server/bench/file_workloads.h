// Prompts and times from files: one JSON object a line.
#pragma once

#include <memory>

#include "server/bench/workload.h"

namespace tessera::bench {

/// Lines {"prompt": text or token ids} or {"messages": [...]}, each with an optional
/// "output_tokens". More requests than lines begin again. Messages are for chat, token ids for
/// completions only. Errors: as make_workload().
[[nodiscard]] Result<std::unique_ptr<Workload>> read_jsonl_workload(const DataSettings& settings,
                                                                    Api api);

/// Mooncake's trace: {"timestamp": ms, "input_length", "output_length", "hash_ids"}. Each hash id
/// stands for a block of kTraceBlockTokens random tokens, the same wherever it appears, so that
/// requests share prefixes as they did in the trace. Errors: as make_workload().
[[nodiscard]] Result<std::unique_ptr<Workload>> read_mooncake_workload(const DataSettings& settings,
                                                                       uint64_t seed);
inline constexpr int64_t kTraceBlockTokens = 512;

}  // namespace tessera::bench
