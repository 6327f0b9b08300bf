#include "server/openai/generation_session.h"

#include <algorithm>
#include <utility>

#include "engine/base/log.h"

namespace tessera::openai {
namespace {

/// Far more than a healthy HTTP thread ever leaves waiting.
constexpr size_t kMaxIncoming = 65'536;

}  // namespace

/// Carries the events of one prompt to the session. Engine thread.
class GenerationSession::Sink final : public TokenSink {
 public:
  Sink(std::shared_ptr<GenerationSession> session, size_t prompt)
      : session_(std::move(session)), prompt_(prompt) {}

  void on_token(const TokenEvent& event) override {
    session_->enqueue({prompt_, event, Status::ok()});
  }
  void on_error(const Status& status) override { session_->enqueue({prompt_, {}, status}); }

 private:
  std::shared_ptr<GenerationSession> session_;  // shared: the engine may outlast the connection
  size_t prompt_;
};

GenerationSession::GenerationSession(GenerationService& service,
                                     const Tokenizer& tokenizer,
                                     PreparedRequest request,
                                     Reply reply)
    : service_(service),
      exchange_(reply.shared_exchange()),
      answer_(tokenizer, request, std::move(reply)),
      requests_(std::move(request.prompts)) {
  for (const GenerationRequest& prompt : requests_) {
    prompts_.push_back({prompt.id, prompt.num_choices, 0});
  }
}

void GenerationSession::start() {
  exchange_->on_client_gone([weak = weak_from_this()] {
    if (const auto session = weak.lock()) {
      session->abandon();
    }
  });
  for (size_t i = 0; i < requests_.size() && !is_ended_; ++i) {
    log_debug("request_submitted",
              "request_id",
              answer_.reply().request_id(),
              "engine_request_id",
              prompts_[i].id.to_string(),
              "trace_id",
              answer_.reply().trace().trace_id());
    const Status status =
        service_.submit(std::move(requests_[i]), std::make_shared<Sink>(shared_from_this(), i));
    if (!status.is_ok()) {
      fail(error_of_status(status));
      break;
    }
    prompts_[i].num_running_choices = prompts_[i].num_open_choices;
  }
  requests_.clear();
}

void GenerationSession::enqueue(Incoming incoming) {
  if (is_ended_) {
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    if (incoming_.size() >= kMaxIncoming) {
      is_overflowed_ = true;
      return;
    }
    incoming_.push_back(std::move(incoming));
    if (incoming_.size() > 1) {
      return;  // a drain is on its way
    }
  }
  exchange_->post([session = shared_from_this()] { session->drain(); });
}

void GenerationSession::drain() {
  std::vector<Incoming> batch;
  bool is_overflowed = false;
  {
    const std::lock_guard lock(mutex_);
    batch.swap(incoming_);
    is_overflowed = is_overflowed_;
  }
  if (is_overflowed) {
    log_error("session_overflow", "request_id", answer_.reply().request_id());
    fail(error_of_status(internal_error("too many tokens wait to be sent")));
  }
  for (const Incoming& incoming : batch) {
    handle(incoming);
  }
}

void GenerationSession::handle(const Incoming& incoming) {
  if (is_ended_) {
    return;
  }
  if (incoming.error.is_ok()) {
    handle_token(incoming.prompt, incoming.event);
    return;
  }
  prompts_[incoming.prompt].num_running_choices = 0;
  log_warning("request_failed",
              "request_id",
              answer_.reply().request_id(),
              "trace_id",
              answer_.reply().trace().trace_id(),
              "status",
              incoming.error.to_string());
  fail(error_of_status(incoming.error));
}

void GenerationSession::handle_token(size_t prompt_index, const TokenEvent& event) {
  PromptState& prompt = prompts_[prompt_index];
  prompt.num_running_choices -= event.finish_reason.has_value() ? 1 : 0;
  if (answer_.has_ended(prompt_index, event.choice)) {
    return;  // by a stop string; other choices keep the request running
  }
  if (!answer_.add_token(prompt_index, event)) {
    return;
  }
  --prompt.num_open_choices;
  if (prompt.num_open_choices == 0 && prompt.num_running_choices > 0) {
    prompt.num_running_choices = 0;
    service_.cancel(prompt.id);
  }
  if (is_complete() && !is_ended_) {
    is_ended_ = true;
    answer_.finish();
    end();
  }
}

bool GenerationSession::is_complete() const {
  return std::all_of(prompts_.begin(), prompts_.end(), [](const PromptState& prompt) {
    return prompt.num_open_choices == 0;
  });
}

void GenerationSession::abandon() {
  if (is_ended_) {
    return;
  }
  answer_.reply().metrics().client_disconnects.add();
  end();
}

void GenerationSession::fail(const ApiError& error) {
  if (is_ended_) {
    return;
  }
  is_ended_ = true;  // first: sending may find the client gone and come back through abandon()
  answer_.fail(error);
  end();
}

void GenerationSession::end() {
  is_ended_ = true;
  for (PromptState& prompt : prompts_) {
    if (prompt.num_running_choices > 0) {
      prompt.num_running_choices = 0;
      service_.cancel(prompt.id);
    }
  }
  answer_.end();
}

}  // namespace tessera::openai
