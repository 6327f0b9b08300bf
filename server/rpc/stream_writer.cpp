#include "server/rpc/stream_writer.h"

#include <utility>

#include <pthread.h>

namespace tessera::rpc {

StreamWriter::StreamWriter() : thread_([this] { work(); }) {}

StreamWriter::~StreamWriter() {
  stop_blocking();
}

bool StreamWriter::try_post(std::shared_ptr<PostedStream> stream) {
  bool was_empty = false;
  {
    const std::lock_guard lock(mutex_);
    if (is_stopped_) {
      return false;
    }
    was_empty = streams_.empty();
    streams_.push_back(std::move(stream));
  }
  if (was_empty) {
    changed_.notify_one();
  }
  return true;
}

void StreamWriter::stop_blocking() {
  Streams dropped;  // destroyed after the lock
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    dropped.swap(streams_);
  }
  changed_.notify_one();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void StreamWriter::work() {
  pthread_setname_np(pthread_self(), "stream-writer");
  Streams streams;
  while (take_blocking(streams)) {
    for (const auto& stream : streams) {
      stream->write_posted();
    }
    streams.clear();
  }
}

bool StreamWriter::take_blocking(Streams& streams) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return is_stopped_ || !streams_.empty(); });
  streams.swap(streams_);
  return !is_stopped_;
}

}  // namespace tessera::rpc
