#include "engine/transport/ucx_link.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <utility>

#include <ucp/api/ucp.h>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/transport/ucx_context.h"
#include "engine/transport/ucx_lane.h"

namespace tessera {
namespace {

/// Messages are small; a longer one is not ours.
constexpr size_t kMaxMessageBytes = 8192;
constexpr int kMaxProgressCalls = 16;
/// A packed key begins with the map of memory domains (8 bytes) and the memory's type (1 byte), so
/// that versions of UCX understand each other. UCX itself offers no way to ask.
constexpr size_t kKeyTypeOffset = 8;

Status ucx_error(const char* what, ucs_status_t status) {
  return unavailable(str_cat("UCX ", what, ": ", ucs_status_string(status)));
}

}  // namespace

/// What UCX calls.
struct UcxCallbacks {
  static void on_done(void* request, ucs_status_t status, void* user_data) {
    auto* operation = static_cast<UcxLink::Operation*>(user_data);
    finish(*operation, status, "operation");
    ucp_request_free(request);
  }
  static void on_put_done(void* request, ucs_status_t status, void* user_data) {
    if (status != UCS_OK) {
      static_cast<UcxLink*>(user_data)->fail(ucx_error("put", status));
    }
    ucp_request_free(request);
  }
  static void on_closed(void* request, ucs_status_t /*status*/, void* user_data) {
    --static_cast<UcxLink*>(user_data)->num_closes_;
    ucp_request_free(request);
  }
  static void on_endpoint_failed(void* user_data, ucp_ep_h /*endpoint*/, ucs_status_t status) {
    static_cast<UcxLink*>(user_data)->fail(ucx_error("endpoint", status));
  }
  template <UcxLink::MessageKind kKind>
  static ucs_status_t on_message(void* user_data,  // NOLINT(readability-function-size): UCX's
                                 const void* /*header*/,
                                 size_t /*header_length*/,
                                 void* data,
                                 size_t length,
                                 const ucp_am_recv_param_t* param) {
    const bool is_inline = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0;
    if (is_inline && length <= kMaxMessageBytes) {
      auto* link = static_cast<UcxLink*>(user_data);
      link->inbox_.push_back({kKind, std::string(static_cast<const char*>(data), length)});
    }
    return UCS_OK;
  }
  static void finish(UcxLink::Operation& operation, ucs_status_t status, const char* what) {
    UcxLink* link = operation.link;
    const std::function<void()> done = std::move(operation.done);
    link->operations_.erase(operation.self);
    if (status != UCS_OK) {
      link->fail(ucx_error(what, status));
    } else if (done) {
      done();
    }
  }
};

Result<std::unique_ptr<UcxLink>> UcxLink::create(UcxContext& context) {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  ucp_worker_h worker = nullptr;
  ucs_status_t status = ucp_worker_create(context.get(), &params, &worker);
  if (status != UCS_OK) {
    return ucx_error("worker", status);
  }
  std::unique_ptr<UcxLink> link(new UcxLink(worker, {}, -1));
  status = ucp_worker_get_efd(worker, &link->event_fd_);
  if (status != UCS_OK) {
    return ucx_error("worker's events", status);
  }
  ucp_address_t* address = nullptr;
  size_t length = 0;
  status = ucp_worker_get_address(worker, &address, &length);
  if (status != UCS_OK) {
    return ucx_error("worker's address", status);
  }
  link->address_.assign(reinterpret_cast<const char*>(address), length);
  ucp_worker_release_address(worker, address);
  TESSERA_RETURN_IF_ERROR(link->register_handlers());
  return link;
}

UcxLink::UcxLink(ucp_worker* worker, std::string address, int event_fd)
    : worker_(worker), address_(std::move(address)), event_fd_(event_fd) {}

Status UcxLink::register_handlers() {
  struct Handler {
    MessageKind kind;
    ucp_am_recv_callback_t callback;
  };
  const std::array<Handler, 4> handlers = {{
      {MessageKind::kHello, &UcxCallbacks::on_message<MessageKind::kHello>},
      {MessageKind::kReady, &UcxCallbacks::on_message<MessageKind::kReady>},
      {MessageKind::kAck, &UcxCallbacks::on_message<MessageKind::kAck>},
      {MessageKind::kGoodbye, &UcxCallbacks::on_message<MessageKind::kGoodbye>},
  }};
  for (const Handler& handler : handlers) {
    ucp_am_handler_param_t params{};
    params.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                        UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
    params.id = static_cast<unsigned>(handler.kind);
    params.flags = UCP_AM_FLAG_WHOLE_MSG;
    params.cb = handler.callback;
    params.arg = this;
    const ucs_status_t status = ucp_worker_set_am_recv_handler(worker_, &params);
    if (status != UCS_OK) {
      return ucx_error("message handler", status);
    }
  }
  return Status::ok();
}

UcxLink::~UcxLink() {
  if (remote_key_ != nullptr) {
    ucp_rkey_destroy(remote_key_);
  }
  if (endpoint_ != nullptr && !is_closing_) {
    begin_close();
  }
  ucp_worker_destroy(worker_);
}

Status UcxLink::connect(const std::string& remote_address) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(remote_address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = &UcxCallbacks::on_endpoint_failed;
  params.err_handler.arg = this;
  const ucs_status_t status = ucp_ep_create(worker_, &params, &endpoint_);
  if (status != UCS_OK) {
    endpoint_ = nullptr;
    return ucx_error("endpoint", status);
  }
  return Status::ok();
}

Status UcxLink::import_remote_key(const std::string& remote_key) {
  const ucs_status_t status = ucp_ep_rkey_unpack(endpoint_, remote_key.data(), &remote_key_);
  return status == UCS_OK ? Status::ok() : ucx_error("remote key", status);
}

bool UcxLink::is_host_key(const std::string& remote_key) {
  return remote_key.size() <= kKeyTypeOffset ||
         static_cast<unsigned char>(remote_key[kKeyTypeOffset]) == UCS_MEMORY_TYPE_HOST;
}

std::byte* UcxLink::find_shared(uint64_t remote_address) const {
  void* address = nullptr;
  const bool is_shared =
      remote_key_ != nullptr && ucp_rkey_ptr(remote_key_, remote_address, &address) == UCS_OK;
  return is_shared ? static_cast<std::byte*>(address) : nullptr;
}

void UcxLink::fail(const Status& status) {
  if (failure_.is_ok() && !is_closing_) {
    failure_ = status;
  }
}

UcxLink::Operation& UcxLink::new_operation(std::string payload, std::function<void()> done) {
  operations_.push_back({this, std::move(payload), std::move(done), {}});
  operations_.back().self = std::prev(operations_.end());
  return operations_.back();
}

void UcxLink::track(void* request, Operation& operation, const char* what) {
  if (!UCS_PTR_IS_PTR(request)) {
    UcxCallbacks::finish(operation, UCS_PTR_STATUS(request), what);
  }
}

void UcxLink::put(const void* source, int64_t num_bytes, uint64_t remote_address) {
  if (endpoint_ == nullptr || !failure_.is_ok() || is_closing_) {
    return;
  }
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.cb.send = &UcxCallbacks::on_put_done;
  params.user_data = this;
  if (has_cuda_sources_) {
    params.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMORY_TYPE;
    params.memory_type = UCS_MEMORY_TYPE_CUDA;
  }
  void* request = ucp_put_nbx(
      endpoint_, source, static_cast<size_t>(num_bytes), remote_address, remote_key_, &params);
  if (UCS_PTR_IS_ERR(request)) {
    fail(ucx_error("put", UCS_PTR_STATUS(request)));
  }
}

void UcxLink::flush(std::function<void()> done) {
  if (endpoint_ == nullptr || !failure_.is_ok() || is_closing_) {
    return;
  }
  Operation& operation = new_operation({}, std::move(done));
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.cb.send = &UcxCallbacks::on_done;
  params.user_data = &operation;
  track(ucp_ep_flush_nbx(endpoint_, &params), operation, "flush");
}

void UcxLink::send(MessageKind kind, std::string bytes) {
  if (endpoint_ == nullptr || !failure_.is_ok() || is_closing_) {
    return;
  }
  Operation& operation = new_operation(std::move(bytes), {});
  ucp_request_param_t params{};
  params.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_AM_SEND_FLAG_EAGER;
  params.cb.send = &UcxCallbacks::on_done;
  params.user_data = &operation;
  track(ucp_am_send_nbx(endpoint_,
                        static_cast<unsigned>(kind),
                        nullptr,
                        0,
                        operation.payload.data(),
                        operation.payload.size(),
                        &params),
        operation,
        "message");
}

bool UcxLink::progress() {
  int num_calls = 0;
  while (num_calls < kMaxProgressCalls && ucp_worker_progress(worker_) != 0) {
    ++num_calls;
  }
  return num_calls > 0;
}

bool UcxLink::arm() {
  return ucp_worker_arm(worker_) == UCS_OK;
}

std::vector<UcxLink::Message> UcxLink::take_messages() {
  return std::exchange(inbox_, {});
}

void UcxLink::begin_close() {
  if (is_closing_) {
    return;
  }
  is_closing_ = true;
  if (endpoint_ == nullptr) {
    return;
  }
  ucp_request_param_t params{};
  params.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_EP_CLOSE_FLAG_FORCE;
  params.cb.send = &UcxCallbacks::on_closed;
  params.user_data = this;
  num_closes_ = 1;
  void* request = ucp_ep_close_nbx(endpoint_, &params);
  if (!UCS_PTR_IS_PTR(request)) {
    num_closes_ = 0;
  }
  endpoint_ = nullptr;
}

std::string UcxLink::lane() const {
  if (endpoint_ == nullptr) {
    return {};
  }
  char* text = nullptr;
  size_t size = 0;
  FILE* stream = open_memstream(&text, &size);
  if (stream == nullptr) {
    return {};
  }
  ucp_ep_print_info(endpoint_, stream);
  std::fclose(stream);
  std::string lane = parse_lanes(std::string_view(text, size));
  std::free(text);  // NOLINT: open_memstream's memory
  return lane;
}

}  // namespace tessera
