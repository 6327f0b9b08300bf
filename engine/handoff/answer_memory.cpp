#include "engine/handoff/answer_memory.h"

namespace tessera {

void AnswerMemory::remember(const HandoffKey& key, const Status& status, TimePoint now) {
  const auto [answer, is_new] = answers_.try_emplace(key.request, Answer{key.attempt, status});
  if (!is_new) {
    if (key.attempt <= answer->second.attempt) {
      return;
    }
    answer->second = {key.attempt, status};
  }
  entries_.push_back({key.request, key.attempt, now + time_to_live_});
  while (entries_.size() > max_answers_) {
    forget_oldest();
  }
}

const AnswerMemory::Answer* AnswerMemory::find(const RequestId& request) const {
  const auto found = answers_.find(request);
  return found == answers_.end() ? nullptr : &found->second;
}

void AnswerMemory::forget_old(TimePoint now) {
  while (!entries_.empty() && now >= entries_.front().expires_at) {
    forget_oldest();
  }
}

void AnswerMemory::forget_oldest() {
  const Entry& oldest = entries_.front();
  const auto answer = answers_.find(oldest.request);
  if (answer != answers_.end() && answer->second.attempt == oldest.attempt) {
    answers_.erase(answer);
  }
  entries_.pop_front();
}

}  // namespace tessera
