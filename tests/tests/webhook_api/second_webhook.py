"""A mutating webhook of somebody else's, which the API server asks after ours: changes pods as a file says.

Arguments: ADDRESS CERTIFICATE KEY CHANGES. CHANGES is read at each review: a list of JSON Patch operations, in whose paths INIT is the
index of the init container istio-init. It may not fit the pod any more when the webhook is asked again; it is not (Never).
"""

import base64
import http.server
import json
import ssl
import sys

address, certificate, key, changes = sys.argv[1:]


class Reviews(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = review.pop("request")
        inits = request["object"]["spec"].get("initContainers", [])
        init = next((n for n, one in enumerate(inits) if one["name"] == "istio-init"), None)
        response = {"uid": request["uid"], "allowed": True}
        if init is not None:
            with open(changes, encoding="utf-8") as file:
                patch = file.read().replace("INIT", str(init))
            response["patchType"] = "JSONPatch"
            response["patch"] = base64.b64encode(patch.encode()).decode()
        body = json.dumps(review | {"response": response}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer((address, 9443), Reviews)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
