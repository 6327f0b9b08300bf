// The JSON body that asks an OpenAI-style server for a streamed answer.
#pragma once

#include <string>

#include "server/bench/workload.h"

namespace tessera::bench {

/// Chat sends messages, or text made of the ids; completions send token ids where there are some.
/// Usage is asked for in the stream's last chunk.
[[nodiscard]] std::string request_body(const BenchSettings& settings, const Prompt& prompt);

}  // namespace tessera::bench
