// The last answers to handoffs that are over, so that a replayed message gets the same one and an
// attempt that came too late is refused. Bounded by time and number. Engine thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>

#include "engine/base/deadline.h"
#include "engine/handoff/messages.h"

namespace tessera {

class AnswerMemory final {
 public:
  using TimePoint = Deadline::Clock::time_point;
  struct Answer {
    uint32_t attempt = 0;
    Status status;  ///< ok: committed; else aborted
  };

  AnswerMemory(Deadline::Clock::duration time_to_live, size_t max_answers)
      : time_to_live_(time_to_live), max_answers_(max_answers) {}

  /// Keeps the answer to the highest attempt of a request.
  void remember(const HandoffKey& key, const Status& status, TimePoint now);
  [[nodiscard]] const Answer* find(const RequestId& request) const;
  void forget_old(TimePoint now);
  [[nodiscard]] size_t size() const noexcept { return answers_.size(); }

 private:
  struct Entry {
    RequestId request;
    uint32_t attempt = 0;
    TimePoint expires_at;
  };
  void forget_oldest();

  const Deadline::Clock::duration time_to_live_;
  const size_t max_answers_;
  std::unordered_map<RequestId, Answer, RequestIdHash> answers_;
  std::deque<Entry> entries_;  // oldest first; one an answer, and those that it replaced
};

}  // namespace tessera
