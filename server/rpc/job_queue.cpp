#include "server/rpc/job_queue.h"

#include <utility>

namespace tessera::rpc {

JobQueue::JobQueue(const Bounds& bounds) : bounds_(bounds) {
  for (size_t i = 0; i < bounds.num_threads; ++i) {
    threads_.emplace_back([this] { work(); });
  }
}

JobQueue::~JobQueue() {
  stop_blocking();
}

bool JobQueue::try_post(int64_t num_bytes, std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    if (is_stopped_ || jobs_.size() >= bounds_.max_jobs ||
        num_bytes_ + num_bytes > bounds_.max_bytes) {
      return false;
    }
    num_bytes_ += num_bytes;
    jobs_.push_back({num_bytes, std::move(job)});
  }
  changed_.notify_one();
  return true;
}

void JobQueue::stop_blocking() {
  std::deque<Job> dropped;  // their owners may come back here
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    dropped.swap(jobs_);
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) {
    thread.join();
  }
  threads_.clear();
}

void JobQueue::work() {
  while (const auto run = take_blocking().run) {
    run();
  }
}

JobQueue::Job JobQueue::take_blocking() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return is_stopped_ || !jobs_.empty(); });
  if (is_stopped_) {
    return {};
  }
  Job job = std::move(jobs_.front());
  jobs_.pop_front();
  num_bytes_ -= job.num_bytes;
  return job;
}

}  // namespace tessera::rpc
