package e2e

// policy is what the tests' brokers run under. Certificates are short, so that
// their end can be seen.
const policy = `
sallyport: 1
assurance: session
roles:
  operator: [operators]
  auditor: [auditors]
rules:
  - name: root
    who: [engineers]
    where: "*"
    logins: [root]
    duration: {default: 15m, max: 1h}
    approvals:
      - slots:
          - {groups: [approvers], count: 1}
          - {groups: [security], count: 1}
    reason: {required: true}
  - name: databases
    who: [engineers]
    where: class=database
    logins: [dba]
    duration: {default: 30m, max: 2h}
    certificate: {lifetime: 5m}
    approvals:
      - slots:
          - {groups: [approvers], count: 1}
    reason: {required: true, min_length: 10, message: Say what you will do and why.}
    emergency: {who: [engineers], duration: {default: 10m, max: 30m}, review: {by: [security], within: 24h}}
  - name: web
    who: [engineers]
    where: class=web
    logins: [web]
    duration: {default: 15m, max: 1h}
    automatic: true
`
