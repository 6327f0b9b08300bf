#include "server/router/router.h"

#include <chrono>
#include <utility>

#include <pthread.h>

#include "engine/base/text.h"

namespace tessera::router {
namespace {

// After an abort the router thread ends the rest at its next turn.
constexpr std::chrono::seconds kAbortGrace{5};
constexpr int32_t kMaxChoices = 1024;  // far above what the front end allows

BlockHash random_salt() {
  const RequestId id = RequestId::random();
  return {id.high, id.low};
}

}  // namespace

Result<std::unique_ptr<Router>> Router::create(RouterOptions options,
                                               WorkerConnector& connector,
                                               Resolver resolver) {
  TESSERA_RETURN_IF_ERROR(options.validate());
  TESSERA_TRY(WorkerSpec prefill, WorkerSpec::parse(options.prefill_workers));
  TESSERA_TRY(WorkerSpec decode, WorkerSpec::parse(options.decode_workers));
  if (!resolver) {
    resolver = resolve_with_getaddrinfo_blocking;
  }
  std::unique_ptr<Router> router(new Router(std::move(options), connector));
  router->watch(std::move(prefill), std::move(decode), resolver);
  return router;
}

Router::Router(RouterOptions options, WorkerConnector& connector)
    : options_(std::move(options)),
      salt_(random_salt()),
      inbox_(std::make_shared<RouterInbox>(options_)),
      loop_({options_, connector, inbox_, metrics_, board_}),
      thread_([this](const std::stop_token& stop) { run_thread(stop); }) {}

Router::~Router() {
  inbox_->close(unavailable("the router is stopped"));
  watcher_.reset();
  thread_.request_stop();
  inbox_->wake();
  thread_.join();
}

void Router::watch(WorkerSpec prefill, WorkerSpec decode, const Resolver& resolver) {
  watcher_ = std::make_unique<AddressWatcher>(
      AddressBook(std::move(prefill), resolver),
      AddressBook(std::move(decode), resolver),
      options_.resolve_period,
      [inbox = inbox_](WorkerRole role, std::vector<std::string> addresses) {
        inbox->post(AddressList{role, std::move(addresses)});
      });
}

Status Router::check(const GenerationRequest& request) const {
  const auto num_tokens = static_cast<int64_t>(request.prompt_ids.size());
  if (num_tokens < 1 || num_tokens >= options_.max_model_len) {
    return invalid_argument(str_cat("the prompt has ",
                                    num_tokens,
                                    " tokens, expected 1 to ",
                                    options_.max_model_len - 1,
                                    " (max_model_len less one)"));
  }
  for (const int32_t id : request.prompt_ids) {
    if (id < 0 || id >= options_.vocab_size) {
      return invalid_argument(str_cat(
          "the prompt names token ", id, ", the vocabulary has ", options_.vocab_size, " tokens"));
    }
  }
  if (request.num_choices < 1 || request.num_choices > kMaxChoices || request.first_choice < 0) {
    return invalid_argument(str_cat("n is ", request.num_choices, ", expected 1 to ", kMaxChoices));
  }
  return request.sampling.validate(options_.vocab_size);
}

Status Router::submit(GenerationRequest request, std::shared_ptr<TokenSink> sink) {
  TESSERA_RETURN_IF_ERROR(inbox_->state());  // spares the work below
  TESSERA_RETURN_IF_ERROR(check(request));
  std::vector<BlockHash> chain = hash_blocks(request.prompt_ids, salt_);
  Status status = inbox_->submit({std::move(request), std::move(chain), std::move(sink)});
  if (status.code() == StatusCode::kResourceExhausted) {
    metrics_.requests_rejected.add();
  }
  return status;
}

void Router::cancel(const RequestId& id) {
  inbox_->cancel(id);
}

Status Router::readiness() const {
  return inbox_->readiness();
}

void Router::begin_drain() {
  inbox_->close(unavailable("the router is draining"));
}

Status Router::drain_blocking(Deadline deadline) {
  begin_drain();
  if (inbox_->wait_until_empty_blocking(deadline)) {
    return Status::ok();
  }
  inbox_->abort_live(unavailable("the router is shutting down"));
  const bool is_empty = inbox_->wait_until_empty_blocking(Deadline::after(kAbortGrace));
  return {StatusCode::kDeadlineExceeded,
          is_empty ? "requests were ended at the drain's deadline"
                   : "requests are still live after the drain's deadline"};
}

void Router::run_thread(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), "router");
  RouterInbox::Work work;
  while (!stop.stop_requested()) {
    inbox_->collect_blocking(work, Deadline(loop_.next_due_at()));
    loop_.turn(work, Deadline::Clock::now());
  }
  inbox_->collect(work);  // submissions that came before close(): they must hear of their end
  loop_.turn(work, Deadline::Clock::now());
  loop_.fail_all(unavailable("the router is stopped"));
  inbox_->shut();
}

}  // namespace tessera::router
