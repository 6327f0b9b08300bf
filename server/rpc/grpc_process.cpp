#include "server/rpc/grpc_process.h"

#include <atomic>
#include <memory>
#include <mutex>

#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/credentials.h>

#include "engine/base/log.h"

namespace tessera::rpc {
namespace {

/// gRPC 1.51 ends its callback threads when the last channel dies, and joins them from whoever
/// dropped it. A call's context holds its channel and dies on such a thread, which would then join
/// itself. One channel that is never dropped rules that out; it takes its share in the threads with
/// its first call, which is cancelled at once.
struct ThreadAnchor {
  std::shared_ptr<grpc::Channel> channel =
      grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials());
  grpc::GenericStub stub{channel};
  grpc::ClientContext context;
  grpc::Slice nothing{"", 0};
  grpc::ByteBuffer request{&nothing, 1};
  grpc::ByteBuffer response;

  ThreadAnchor() {
    context.TryCancel();
    stub.UnaryCall(&context, "/none", {}, &request, &response, [](const grpc::Status&) {});
  }
};

void forward_log(gpr_log_func_args* arguments) {
  if (arguments->severity == GPR_LOG_SEVERITY_ERROR) {
    log_warning("grpc", "message", arguments->message);
  } else {
    log_debug("grpc", "message", arguments->message);
  }
}

}  // namespace

void set_up_grpc() {
  static std::once_flag once;
  static std::atomic<ThreadAnchor*> anchor;  // stays reachable, never destroyed
  std::call_once(once, [] {
    gpr_set_log_function(forward_log);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    anchor = std::make_unique<ThreadAnchor>().release();
  });
}

}  // namespace tessera::rpc
