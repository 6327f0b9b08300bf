#include "server/rpc/text_session.h"

#include <algorithm>
#include <utility>

#include "server/rpc/convert.h"

namespace tessera::rpc {
namespace {

/// Far more than a healthy text thread ever leaves waiting.
constexpr size_t kMaxIncoming = 65'536;

}  // namespace

class TextSession::Sink final : public TokenSink {
 public:
  explicit Sink(std::shared_ptr<TextSession> session) : session_(std::move(session)) {}
  void on_token(const TokenEvent& event) override { session_->enqueue({event, Status::ok()}); }
  void on_error(const Status& status) override { session_->enqueue({{}, status}); }

 private:
  std::shared_ptr<TextSession> session_;  // shared: the service may outlast the call
};

TextSession::TextSession(Parts parts, std::shared_ptr<TextStream> stream)
    : parts_(std::move(parts)), stream_(std::move(stream)) {}

void TextSession::submit(PreparedText prepared) {
  prepare_choices(prepared);
  if (!begin_submit()) {
    return;
  }
  end_submit(parts_.service.submit(std::move(prepared.generation),
                                   std::make_shared<Sink>(shared_from_this())));
}

void TextSession::prepare_choices(const PreparedText& prepared) {
  id_ = prepared.generation.id;
  num_prompt_tokens_ = static_cast<int64_t>(prepared.generation.prompt_ids.size());
  num_open_choices_ = prepared.generation.num_choices;
  for (int32_t i = 0; i < num_open_choices_; ++i) {
    DetokenizerOptions options;
    options.stop_strings = prepared.stop;
    choices_.push_back({IncrementalDetokenizer(parts_.tokenizer, std::move(options))});
  }
}

bool TextSession::begin_submit() {
  const std::lock_guard lock(mutex_);
  num_running_choices_ = num_open_choices_;
  return !is_over_;
}

void TextSession::end_submit(const Status& status) {
  bool must_cancel = false;
  {
    const std::lock_guard lock(mutex_);
    is_submitted_ = status.is_ok();
    if (!is_submitted_ || is_over_) {
      must_cancel = is_submitted_ && num_running_choices_ > 0;
      num_running_choices_ = 0;
      is_over_ = true;
    }
  }
  if (must_cancel) {  // the client went meanwhile
    parts_.service.cancel(id_);
  }
  if (status.is_ok()) {
    stream_->start();
  } else {
    stream_->refuse(status);
  }
}

void TextSession::cancel() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
    if (!is_submitted_ || num_running_choices_ == 0) {
      return;  // end_submit() sees to it, or there is nothing to end
    }
    num_running_choices_ = 0;
  }
  parts_.service.cancel(id_);
}

void TextSession::enqueue(Incoming incoming) {
  const std::lock_guard lock(mutex_);
  if (!incoming.error.is_ok()) {
    num_running_choices_ = 0;
  } else if (incoming.event.finish_reason.has_value()) {
    num_running_choices_ = std::max(num_running_choices_ - 1, 0);
  }
  if (is_over_ || incoming_.size() > kMaxIncoming) {
    return;
  }
  if (incoming_.size() == kMaxIncoming) {
    incoming = {{}, internal_error("too many tokens wait to be sent")};
  }
  incoming_.push_back(std::move(incoming));
  if (incoming_.size() > 1) {
    return;  // a drain is on its way
  }
  const bool is_posted =
      parts_.text_thread->try_post(0, [session = shared_from_this()] { session->drain(); });
  if (!is_posted) {
    incoming_.clear();
    stream_->finish(unavailable("the server is shutting down"));
  }
}

void TextSession::drain() {
  std::vector<Incoming> batch;
  {
    const std::lock_guard lock(mutex_);
    batch.swap(incoming_);
  }
  for (const Incoming& incoming : batch) {
    if (!incoming.error.is_ok()) {
      cancel();  // the overflow's; of the service's own errors nothing is left to end
      stream_->finish(incoming.error);
      return;
    }
    handle_token(incoming.event);
  }
}

void TextSession::handle_token(const TokenEvent& event) {
  const auto number = static_cast<size_t>(event.choice);
  if (number >= choices_.size() || choices_[number].has_ended) {
    return;  // ended by a stop string; other choices keep the request running
  }
  Choice& choice = choices_[number];
  ++num_completion_tokens_;
  num_cached_tokens_ = std::max(num_cached_tokens_, event.num_cached_tokens);
  v1::GenerateTextEvent out;
  out.set_choice(event.choice);
  v1::TokenEvent& token = *out.add_tokens();
  to_proto(event, token);
  bool is_stopped = false;
  out.set_text(push_text(choice, event, is_stopped));
  out.set_finish_reason(is_stopped ? v1::FINISH_REASON_STOP : token.finish_reason());
  choice.has_ended = is_stopped || event.finish_reason.has_value();
  num_open_choices_ -= choice.has_ended ? 1 : 0;
  if (num_open_choices_ == 0) {
    finish(std::move(out));
  } else {
    stream_->push(std::move(out));
  }
}

std::string TextSession::push_text(Choice& choice, const TokenEvent& event, bool& is_stopped) {
  std::string text;
  if (event.finish_reason != FinishReason::kStop) {  // an end token shows no text
    text = choice.detokenizer.push(event.token_id);
  }
  is_stopped = choice.detokenizer.found_stop().has_value();
  if (!is_stopped && event.finish_reason.has_value()) {
    text += choice.detokenizer.flush();
  }
  return text;
}

void TextSession::finish(v1::GenerateTextEvent last) {
  v1::Usage& usage = *last.mutable_usage();
  usage.set_prompt_tokens(num_prompt_tokens_);
  usage.set_completion_tokens(num_completion_tokens_);
  usage.set_cached_tokens(num_cached_tokens_);
  cancel();  // where stop strings ended choices that the service goes on with
  stream_->push(std::move(last));
  stream_->finish(Status::ok());
}

}  // namespace tessera::rpc
