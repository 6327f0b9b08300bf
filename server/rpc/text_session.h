// One Generate call between the engine and its stream: submits, turns tokens into text on the text
// thread, and cancels what nobody reads any more.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/request/generation_service.h"
#include "engine/tokenizer/detokenizer.h"
#include "proto/tessera/inference.pb.h"
#include "server/rpc/event_stream.h"
#include "server/rpc/job_queue.h"
#include "server/rpc/text_preparer.h"

namespace tessera::rpc {

using TextStream = EventStream<v1::GenerateTextEvent>;

/// Kept alive by its sink and by queued jobs; the stream holds only a weak reference.
class TextSession final : public std::enable_shared_from_this<TextSession> {
 public:
  struct Parts {
    GenerationService& service;
    const Tokenizer& tokenizer;
    std::shared_ptr<JobQueue> text_thread;  ///< one thread; shared: sinks outlive the API
  };

  TextSession(Parts parts, std::shared_ptr<TextStream> stream);
  ~TextSession() = default;
  TextSession(const TextSession&) = delete;
  TextSession& operator=(const TextSession&) = delete;

  /// Once. A refusal ends the stream.
  void submit(PreparedText prepared);
  /// The stream is over. The service hears of it at most once, and only while it has something to
  /// end. Any thread, but never from the sink.
  void cancel();

 private:
  class Sink;
  /// A token or, when `error` is not ok, the end of the request.
  struct Incoming {
    TokenEvent event;
    Status error;
  };
  struct Choice {
    IncrementalDetokenizer detokenizer;
    bool has_ended = false;
  };

  void prepare_choices(const PreparedText& prepared);
  /// False when the client is gone already.
  [[nodiscard]] bool begin_submit();
  void end_submit(const Status& status);
  void enqueue(Incoming incoming);  // any thread
  void drain();                     // text thread only, as all below
  void handle_token(const TokenEvent& event);
  [[nodiscard]] std::string push_text(Choice& choice, const TokenEvent& event, bool& is_stopped);
  void finish(v1::GenerateTextEvent last);

  const Parts parts_;
  const std::shared_ptr<TextStream> stream_;  // shared with gRPC
  RequestId id_;                              // these four: before the service knows the sink
  int64_t num_prompt_tokens_ = 0;
  std::vector<Choice> choices_;  // then the text thread's
  int32_t num_open_choices_ = 0;
  int64_t num_completion_tokens_ = 0;  // text thread
  int64_t num_cached_tokens_ = 0;      // text thread

  std::mutex mutex_;  // guards all below
  std::vector<Incoming> incoming_;
  int32_t num_running_choices_ = 0;  // which the service has not ended
  bool is_submitted_ = false;
  bool is_over_ = false;  // nobody reads any more
};

}  // namespace tessera::rpc
