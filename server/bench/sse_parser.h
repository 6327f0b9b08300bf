// Server-sent events out of a byte stream, cut anywhere: the payloads of `data:`. Comments and
// other fields are skipped. Copies nothing while an event arrives in one piece.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tessera::bench {

class SseSink {
 public:
  SseSink() = default;
  virtual ~SseSink() = default;
  SseSink(const SseSink&) = delete;
  SseSink& operator=(const SseSink&) = delete;
  /// `payload` is valid during the call.
  virtual void on_event(std::string_view payload) = 0;
};

/// One thread.
class SseParser final {
 public:
  static constexpr size_t kMaxEventBytes = size_t{4} << 20;

  /// Hands each event that `bytes` complete to `sink`. False when an event is longer than
  /// kMaxEventBytes; then the parser is of no further use.
  [[nodiscard]] bool feed(std::string_view bytes, SseSink& sink);

 private:
  [[nodiscard]] bool end_kept_line(std::string_view rest, SseSink& sink);
  [[nodiscard]] bool take_line(std::string_view line, SseSink& sink);

  std::string line_;          // the beginning of a line that has not ended yet
  std::string data_;          // lines of an event, when they are not all in one piece of input
  std::string_view pending_;  // an event's only line so far, within the input of feed()
  bool has_data_ = false;
};

}  // namespace tessera::bench
