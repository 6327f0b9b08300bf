// What is kept of one request: raw times, from which every figure is computed afterwards.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/metrics.h"
#include "server/bench/settings.h"

namespace tessera::bench {

enum class Outcome : uint8_t {
  kCompleted,
  kFailed,      ///< see RequestRecord::error
  kCancelled,   ///< by --cancel-share
  kUnfinished,  ///< open when the run ended
};

struct RequestRecord {
  int64_t index = 0;
  bool is_warmup = false;
  Outcome outcome = Outcome::kUnfinished;
  std::string
      error;  ///< short and without what differs between requests, so that it can be counted

  Clock::time_point scheduled;      ///< when it was due; of a closed loop, when its slot was free
  Clock::time_point sent;           ///< the client began to connect or to write
  Clock::time_point first_byte;     ///< of the answer; the epoch: none came
  Clock::time_point first_content;  ///< first event with text; the epoch: none came
  Clock::time_point last_content;   ///< last event with text or with the reason of the end
  Clock::time_point done;
  std::vector<float> gaps_ms;  ///< between events with text, in order

  int64_t wanted_tokens = 0;
  int64_t prompt_tokens = 0;      ///< as the server counted
  int64_t completion_tokens = 0;  ///< as the server counted; where it did not, events with text
  int64_t num_content_events = 0;
  int64_t num_resends = 0;  ///< a kept connection was found closed: sent again on a new one
};

/// Notes the events of an answer in a record as they come. One thread at a time.
class StreamTrace final {
 public:
  /// Both outlive the trace; `num_events` counts events with text.
  StreamTrace(RequestRecord& record, Counter& num_events)
      : record_(record), num_events_(num_events) {}

  void on_bytes(Clock::time_point now) {
    if (record_.first_byte == Clock::time_point()) {
      record_.first_byte = now;
    }
  }
  void on_content(Clock::time_point now) {
    if (record_.num_content_events == 0) {
      record_.first_content = now;
    } else {
      record_.gaps_ms.push_back(
          std::chrono::duration<float, std::milli>(now - previous_content_).count());
    }
    ++record_.num_content_events;
    num_events_.add();
    previous_content_ = now;
    record_.last_content = now;
  }
  void on_finish_reason(Clock::time_point now) { record_.last_content = now; }
  [[nodiscard]] RequestRecord& record() noexcept { return record_; }

 private:
  RequestRecord& record_;
  Counter& num_events_;
  Clock::time_point previous_content_;
};

}  // namespace tessera::bench
