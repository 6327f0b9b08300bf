// What requests ask: the n-th prompt of a run is a function of the settings, the seed and n, so
// that threads make theirs without a word to each other. Immutable; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "server/bench/settings.h"

namespace tessera::bench {

/// One of the three is not empty.
struct Prompt {
  std::vector<int32_t> token_ids{};
  std::string text{};
  std::string messages_json{};  ///< a JSON list, for chat
  int64_t output_tokens = 0;    ///< asked for
};

class Workload {
 public:
  Workload() = default;
  virtual ~Workload() = default;
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;

  [[nodiscard]] virtual Prompt prompt(int64_t index) const = 0;
  /// Lines of a file; 0 where there is no end.
  [[nodiscard]] virtual int64_t size() const noexcept = 0;
  /// Of a trace, milliseconds, one a line, not decreasing; else empty.
  [[nodiscard]] virtual const std::vector<double>& trace_ms() const noexcept = 0;
};

/// Reads the file, if there is one. Errors: NOT_FOUND, INVALID_ARGUMENT with the bad line.
[[nodiscard]] Result<std::unique_ptr<Workload>> make_workload(const BenchSettings& settings);

/// Words in place of ids, where only text can be sent: equal ids give equal words, so that equal
/// prefixes stay so. How many tokens a server makes of a word is its tokenizer's matter.
[[nodiscard]] std::string text_of(const std::vector<int32_t>& token_ids);

}  // namespace tessera::bench
