#include "server/cli/routing_options.h"

#include "engine/base/text.h"
#include "server/cli/role_sets.h"

namespace tessera::cli {
namespace {

constexpr OptionUnit kSeconds = OptionUnit::kSeconds;
constexpr int64_t kMaxSeconds = int64_t{7} * 24 * 3600;

}  // namespace

std::vector<OptionSpec> routing_options() {
  return {
      {.name = "rpc-host",
       .group = "gRPC",
       .field = &Options::rpc_host,
       .help = "Address of the gRPC port. A worker's is internal: never open it to clients"},
      {.name = "rpc-port",
       .group = "gRPC",
       .field = &Options::rpc_port,
       .help = "gRPC port; 0 for any free one",
       .maximum = 65535},
      {.name = "rpc-ssl-certfile",
       .group = "gRPC",
       .field = &Options::rpc_ssl_certfile,
       .help = "This role's certificate towards the others (PEM). With it, the next two are needed "
               "and roles accept each other by certificate alone (mTLS); the files are read again "
               "when they change",
       .roles = kCluster},
      {.name = "rpc-ssl-keyfile",
       .group = "gRPC",
       .field = &Options::rpc_ssl_keyfile,
       .help = "Its key",
       .roles = kCluster},
      {.name = "rpc-ssl-ca-certs",
       .group = "gRPC",
       .field = &Options::rpc_ssl_ca_certs,
       .help = "Who signs the roles' certificates, and nobody else's",
       .roles = kCluster},
      {.name = "rpc-ssl-name",
       .group = "gRPC",
       .field = &Options::rpc_ssl_name,
       .help =
           "DNS name that every role's certificate has, whatever its address (default: the host "
           "that is connected to)",
       .roles = kCluster},
      {.name = "prefill-workers",
       .group = "Routing",
       .field = &Options::prefill_workers,
       .help =
           "host:port of a prefill worker, or dns:name:port for all addresses of a name; repeat "
           "for more",
       .roles = kRouters},
      {.name = "decode-workers",
       .group = "Routing",
       .field = &Options::decode_workers,
       .help = "The same for the leaders of decode groups",
       .roles = kRouters},
      {.name = "routing-policy",
       .group = "Routing",
       .field = &Options::routing_policy,
       .help = "How a worker is chosen",
       .choices = {"prefix_affinity", "least_load", "round_robin"},
       .roles = kFronts},
      {.name = "max-inflight-requests",
       .group = "Routing",
       .field = &Options::max_inflight_requests,
       .help = "Requests that the router takes at once; further ones are answered 429",
       .minimum = 1,
       .maximum = 1'000'000,
       .roles = kFronts},
      {.name = "worker-wait",
       .group = "Routing",
       .field = &Options::worker_wait_s,
       .help = "How long a request waits for a ready worker",
       .maximum = kMaxSeconds,
       .unit = kSeconds,
       .roles = kFronts},
      {.name = "handoff-lease",
       .group = "Handoff",
       .field = &Options::handoff_lease_s,
       .help = "A peer that is silent for longer is given up",
       .minimum = 1,
       .maximum = 3600,
       .unit = kSeconds,
       .roles = kWorkers},
      {.name = "landing-slots",
       .group = "Handoff",
       .field = &Options::landing_slots,
       .help = "Block images in flight from one prefill worker to one decode rank",
       .minimum = 1,
       .maximum = 4096,
       .roles = kDecoders},
      {.name = "allow-staged-handoff",
       .group = "Handoff",
       .field = &Options::allow_staged_handoff,
       .help = "Accept lanes that stage GPU memory through the host",
       .roles = kWorkers},
      {.name = "handoff-faults",
       .group = "Handoff",
       .field = &Options::handoff_faults,
       .help = "Faults to make, for tests only: drop_ready=N,drop_ack=N,flip=N",
       .roles = kWorkers},
  };
}

std::vector<std::string> check_routing_options(Role role, const Options& options) {
  std::vector<std::string> faults;
  if (role == Role::kRouter && options.prefill_workers.empty()) {
    faults.emplace_back("no prefill worker: give --prefill-workers host:port");
  }
  if (role == Role::kRouter && options.decode_workers.empty()) {
    faults.emplace_back("no decode group: give --decode-workers host:port");
  }
  const int num_files = (options.rpc_ssl_certfile.empty() ? 0 : 1) +
                        (options.rpc_ssl_keyfile.empty() ? 0 : 1) +
                        (options.rpc_ssl_ca_certs.empty() ? 0 : 1);
  if (num_files != 0 && num_files != 3) {
    faults.push_back(str_cat("TLS between roles needs three files: --rpc-ssl-certfile \"",
                             options.rpc_ssl_certfile,
                             "\", --rpc-ssl-keyfile \"",
                             options.rpc_ssl_keyfile,
                             "\", --rpc-ssl-ca-certs \"",
                             options.rpc_ssl_ca_certs,
                             "\""));
  }
  if (num_files == 0 && !options.rpc_ssl_name.empty()) {
    faults.push_back(str_cat("--rpc-ssl-name ",
                             options.rpc_ssl_name,
                             " without --rpc-ssl-certfile: nothing is encrypted"));
  }
  return faults;
}

}  // namespace tessera::cli
