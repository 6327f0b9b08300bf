// Messages that wait for a link's writer: bounded in number and bytes. Not thread-safe.
#pragma once

#include <cstddef>
#include <deque>
#include <utility>

namespace tessera::rpc {

struct OutboxLimits {
  size_t max_messages = 16384;
  size_t max_bytes = size_t{64} << 20;
};

/// `Message` is a protobuf message. References to the front stay valid until pop().
template <typename Message>
class Outbox final {
 public:
  explicit Outbox(const OutboxLimits& limits) : limits_(limits) {}

  /// False when the limit is reached; then nothing is kept.
  [[nodiscard]] bool try_push(Message message) {
    const size_t num_bytes = message.ByteSizeLong();
    if (messages_.size() >= limits_.max_messages || num_bytes_ + num_bytes > limits_.max_bytes) {
      return false;
    }
    num_bytes_ += num_bytes;
    messages_.emplace_back(std::move(message), num_bytes);
    return true;
  }
  [[nodiscard]] bool is_empty() const noexcept { return messages_.empty(); }
  [[nodiscard]] const Message& front() const { return messages_.front().first; }
  void pop() {
    num_bytes_ -= messages_.front().second;
    messages_.pop_front();
  }
  void clear() {
    messages_.clear();
    num_bytes_ = 0;
  }

 private:
  const OutboxLimits limits_;
  std::deque<std::pair<Message, size_t>> messages_;
  size_t num_bytes_ = 0;
};

}  // namespace tessera::rpc
