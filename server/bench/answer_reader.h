// Reads the events of a streamed answer: which carry text, why it ended, what it used. Events with
// text, nearly all of them, are recognised by a search for their keys; only the others are parsed.
#pragma once

#include <string>
#include <string_view>

#include "server/bench/request_record.h"
#include "server/bench/sse_parser.h"

namespace tessera::bench {

/// True when `payload`, an object of a chat or completions stream, has a text that is not empty:
/// "content", "text", "reasoning_content" or "reasoning" in a choice. Right for any valid JSON,
/// with or without white space: a quote inside of a JSON string has a backslash before it, so these
/// keys cannot appear within generated text.
[[nodiscard]] bool has_content(std::string_view payload) noexcept;

/// One answer. One thread.
class AnswerReader final : public SseSink {
 public:
  /// Both outlive the reader; `num_events` counts events with text.
  AnswerReader(RequestRecord& record, Counter& num_events) : trace_(record, num_events) {}

  /// The time that the next bytes arrived.
  void set_now(Clock::time_point now) {
    now_ = now;
    trace_.on_bytes(now);
  }
  void on_event(std::string_view payload) override;

  [[nodiscard]] bool is_done() const noexcept { return is_done_; }  ///< [DONE] came
  [[nodiscard]] bool has_finish_reason() const noexcept { return has_finish_reason_; }
  /// Not empty: an error event, or one that is not JSON.
  [[nodiscard]] const std::string& error() const noexcept { return error_; }

  /// Reads the last usage into the record.
  void finish();

 private:
  void read_other(std::string_view payload);

  StreamTrace trace_;
  Clock::time_point now_;
  std::string usage_event_;  // the last event with a usage
  std::string error_;
  bool has_finish_reason_ = false;
  bool is_done_ = false;
};

/// "message" of an OpenAI-style error object, or the text's beginning; one line, at most 160 bytes.
[[nodiscard]] std::string error_message(std::string_view body);

}  // namespace tessera::bench
