// The thread that starts the writes of a service's event streams, so that a worker's thread only
// queues its events: with thousands of streams a step ends with as many writes.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace tessera::rpc {

/// A stream that has something to write.
class PostedStream {
 public:
  PostedStream() = default;
  virtual ~PostedStream() = default;
  PostedStream(const PostedStream&) = delete;
  PostedStream& operator=(const PostedStream&) = delete;
  /// The writer's thread.
  virtual void write_posted() = 0;
};

class StreamWriter final {
 public:
  StreamWriter();
  /// As stop_blocking(). Never on its own thread, unless it was stopped before.
  ~StreamWriter();
  StreamWriter(const StreamWriter&) = delete;
  StreamWriter& operator=(const StreamWriter&) = delete;

  /// Has `stream` written soon. A stream posts itself again only after that, so the list is bounded
  /// by the open streams. False after stop_blocking(). Any thread.
  [[nodiscard]] bool try_post(std::shared_ptr<PostedStream> stream);
  /// What is posted and not begun is dropped. By the owner, when no stream is open.
  void stop_blocking();

 private:
  using Streams = std::vector<std::shared_ptr<PostedStream>>;

  void work();
  /// Waits for streams; false once it has stopped.
  [[nodiscard]] bool take_blocking(Streams& streams);

  std::mutex mutex_;  // guards streams_ and is_stopped_
  std::condition_variable changed_;
  Streams streams_;
  bool is_stopped_ = false;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace tessera::rpc
