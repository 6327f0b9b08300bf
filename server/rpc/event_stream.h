// The server's side of a call that answers with a stream of events: a bounded queue, one write in
// flight. The worker's sink and gRPC share it, so a sink may outlive the call. Any thread.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "server/rpc/convert.h"
#include "server/rpc/open_calls.h"
#include "server/rpc/stream_writer.h"

namespace tessera::rpc {

/// Echoes the client's x-request-id and returns it; empty when there is none.
[[nodiscard]] std::string pass_request_id(grpc::CallbackServerContext& context);

/// gRPC never runs a reaction inside StartWrite(), Finish() or TryCancel(), so these are called
/// with the mutex held; the worker is not.
template <typename Event>
class EventStream final : public grpc::ServerWriteReactor<Event>,
                          public EndableCall,
                          public PostedStream,
                          public std::enable_shared_from_this<EventStream<Event>> {
 public:
  struct Params {
    grpc::CallbackServerContext* context = nullptr;
    std::shared_ptr<OpenCalls> open_calls;  // shared by the calls of one service
    size_t max_queued_events = 0;
    std::string key;                      ///< for logs
    std::function<void()> cancel_worker;  ///< called at most once, never from a sink's call
    /// Starts the writes of what sinks push; null: the sink's own thread does. Shared as
    /// open_calls; the service stops it.
    std::shared_ptr<StreamWriter> writer = nullptr;
    /// What a slow reader is told. A router takes RESOURCE_EXHAUSTED for a full worker and tries
    /// again and again; ABORTED counts as a replay.
    StatusCode slow_reader_code = StatusCode::kResourceExhausted;
  };

  /// Lives until the call is done, at least. Nothing is written before start() or refuse().
  [[nodiscard]] static std::shared_ptr<EventStream> open(Params params) {
    auto stream = std::make_shared<EventStream>(std::move(params));
    stream->self_ = stream;
    return stream;
  }
  explicit EventStream(Params params) : params_(std::move(params)) {
    log_debug(
        "rpc_stream_opened", "key", params_.key, "x_request_id", pass_request_id(*params_.context));
  }

  [[nodiscard]] Status take_place() { return params_.open_calls->add(this->shared_from_this()); }

  /// The worker has taken the request.
  void start() {
    const std::lock_guard lock(mutex_);
    is_started_ = true;
    write_next();
  }
  /// As start(), with `first` ahead of what the worker has pushed meanwhile.
  void start(Event first) {
    const std::lock_guard lock(mutex_);
    queue_.push_front(std::move(first));
    is_started_ = true;
    write_next();
  }
  /// The worker has refused the request.
  void refuse(const Status& status) {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
    finish_now(status);
  }

  /// From the worker's sink. Ignored once the stream is over.
  void push(Event event) {
    const std::lock_guard lock(mutex_);
    if (is_over_) {
      return;
    }
    if (queue_.size() >= params_.max_queued_events) {
      cut_slow_reader();
      return;
    }
    queue_.push_back(std::move(event));
    post_write();
  }
  /// From the worker's sink: the stream ends with `status` once all events are written.
  void finish(const Status& status) {
    const std::lock_guard lock(mutex_);
    if (is_over_) {
      return;
    }
    is_over_ = true;
    has_end_ = true;
    end_ = status;
    post_write();
  }
  void write_posted() override {
    const std::lock_guard lock(mutex_);
    is_posted_ = false;
    write_next();
  }

  void end(const Status& status) override {
    std::function<void()> cancel_worker;
    {
      const std::lock_guard lock(mutex_);
      if (is_over_) {
        return;
      }
      is_over_ = true;
      cancel_worker = params_.cancel_worker;
    }
    cancel_worker();
    const std::lock_guard lock(mutex_);
    finish_now(status);
  }

  void OnWriteDone(bool is_ok) override {
    const std::lock_guard lock(mutex_);
    is_writing_ = false;
    queue_.pop_front();
    if (!is_ok) {
      queue_.clear();  // the call is broken: OnCancel follows
    }
    write_next();
  }
  void OnCancel() override {
    end(Status(StatusCode::kCancelled, "the call was cancelled"));
    const std::lock_guard lock(mutex_);
    if (!is_cut_) {  // else the cut finishes, after it has told the worker
      finish_now(Status(StatusCode::kCancelled, "the call was cancelled"));
    }
  }
  void OnDone() override {
    std::shared_ptr<EventStream> self;
    {
      const std::lock_guard lock(mutex_);
      is_done_ = true;
      grace_.Cancel();
      self = std::move(self_);
    }
    params_.open_calls->remove(this);
    log_debug("rpc_stream_done", "key", params_.key, "status", end_.to_string());
  }

 private:
  static constexpr std::chrono::seconds kSlowReaderGrace{5};

  /// write_next(), elsewhere if there is a writer. A write in flight goes on to what is queued.
  void post_write() {
    if (params_.writer == nullptr) {
      write_next();
      return;
    }
    if (!is_started_ || is_writing_ || is_finished_ || is_posted_) {
      return;
    }
    is_posted_ = params_.writer->try_post(this->shared_from_this());
    if (!is_posted_) {
      write_next();
    }
  }

  void write_next() {
    if (!is_started_ || is_writing_ || is_finished_) {
      return;
    }
    if (!queue_.empty()) {
      is_writing_ = true;
      this->StartWrite(&queue_.front());
    } else if (has_end_) {
      finish_now(end_);
    }
  }

  void finish_now(const Status& status) {
    if (is_finished_) {
      return;
    }
    is_finished_ = true;
    end_ = status;
    this->Finish(to_grpc(status));
  }

  /// The worker must not be called from its own sink: another thread tells it. The call stays open
  /// until then, so that the service outlives that thread's work.
  void cut_slow_reader() {
    is_over_ = true;
    is_cut_ = true;
    cut_.Set(std::chrono::system_clock::now(), [owner = this->shared_from_this()](bool) mutable {
      const auto self = std::move(owner);  // gRPC keeps the function as long as the alarm lives
      self->params_.cancel_worker();
      const std::lock_guard lock(self->mutex_);
      self->finish_now({self->params_.slow_reader_code,
                        str_cat("the reader of ",
                                self->params_.key,
                                " is ",
                                self->params_.max_queued_events,
                                " events behind, the limit")});
      self->cancel_after_grace();
    });
  }

  /// The status waits behind a write that a dead reader may never take.
  void cancel_after_grace() {
    grace_.Set(std::chrono::system_clock::now() + kSlowReaderGrace,
               [owner = this->shared_from_this()](bool is_due) mutable {
                 const auto self = std::move(owner);
                 const std::lock_guard lock(self->mutex_);
                 if (is_due && !self->is_done_) {
                   self->params_.context->TryCancel();
                 }
               });
  }

  const Params params_;
  std::mutex mutex_;                   // guards all below
  std::shared_ptr<EventStream> self_;  // until OnDone
  std::deque<Event> queue_;            // its front is in flight while is_writing_
  grpc::Alarm cut_;
  grpc::Alarm grace_;
  Status end_;
  bool is_started_ = false;
  bool is_writing_ = false;
  bool is_posted_ = false;  // the writer will come
  bool is_over_ = false;    // nothing more comes from the worker, and it needs no cancel
  bool has_end_ = false;    // end_ is to be sent after the queue
  bool is_cut_ = false;
  bool is_finished_ = false;  // Finish() was called
  bool is_done_ = false;      // the context is dead
};

}  // namespace tessera::rpc
